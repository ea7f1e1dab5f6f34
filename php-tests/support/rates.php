<?php

/**
 * A provider of rates: plays what the file RATES_PLAY says (JSON), and writes down that it was asked.
 *
 *   php -S 127.0.0.1:PORT rates.php
 *
 * /ecb.xml is the ECB's daily document, /latest.json the Open Exchange Rates shape. What may be in RATES_PLAY, by path
 * or for all ("*"): status, retry_after (s), delay_ms, as_of (Unix s; ECB: its date), rates (by code, on the base EUR),
 * body (sent as it is), type (its content type), etag.
 */

declare(strict_types=1);

$path = parse_url($_SERVER['REQUEST_URI'], PHP_URL_PATH);
$plays = json_decode((string) file_get_contents(getenv('RATES_PLAY')), true);
$play = ($plays[$path] ?? []) + ($plays['*'] ?? []) + ['status' => 200, 'as_of' => time(), 'rates' => ['USD' => '1.1172', 'GBP' => '0.8338', 'JPY' => '175.68']];
usleep(1000 * ($play['delay_ms'] ?? 0));

$xml = str_ends_with($path, '.xml');
$etag = $play['etag'] ?? null;
$status = $etag !== null && ($_SERVER['HTTP_IF_NONE_MATCH'] ?? '') === $etag ? 304 : $play['status'];
file_put_contents(getenv('RATES_LOG'), sprintf("%.6f %s %d %s\n", microtime(true), $path, $status, $_SERVER['HTTP_AUTHORIZATION'] ?? '-'), FILE_APPEND | LOCK_EX);

http_response_code($status);
header('Content-Type: ' . ($play['type'] ?? ($xml ? 'text/xml' : 'application/json')));
if ($etag !== null) {
    header("ETag: $etag");
}
if (isset($play['retry_after'])) {
    header("Retry-After: $play[retry_after]");
}
if ($status !== 200) {
    return;
}
if (isset($play['body'])) {
    echo $play['body'];
} elseif ($xml) {
    echo '<?xml version="1.0" encoding="UTF-8"?><gesmes:Envelope xmlns:gesmes="http://www.gesmes.org/xml/2002-08-01" '
        . 'xmlns="http://www.ecb.int/vocabulary/2002-08-01/eurofxref"><gesmes:subject>Reference rates</gesmes:subject>'
        . '<gesmes:Sender><gesmes:name>European Central Bank</gesmes:name></gesmes:Sender><Cube><Cube time="' . gmdate('Y-m-d', $play['as_of']) . '">';
    foreach ($play['rates'] as $code => $rate) {
        echo "<Cube currency=\"$code\" rate=\"$rate\"/>";
    }
    echo '</Cube></Cube></gesmes:Envelope>';
} else {
    echo '{"disclaimer":"-","license":"-","timestamp":', $play['as_of'], ',"base":"EUR","rates":{';
    echo implode(',', array_map(static fn (string $code, string $rate): string => "\"$code\":$rate", array_keys($play['rates']), $play['rates'])), '}}';
}
