<?php

/**
 * ?name=…[&ms=50][&ttl=4]: one shared_token_get whose token can be judged from outside. It says for which name it
 * was minted, until when it is good, by a clock that no test falsifies, and with which fencing version.
 */

declare(strict_types=1);

require __DIR__ . '/mint.php';

/** Seconds since the machine started: read from a file, so libfaketime has no say in it. */
function uptime(): float
{
    return (float) file_get_contents('/proc/uptime');
}

answer(static function (): array {
    $token = shared_token_get($_GET['name'], static function (array $for): array {
        $ttl = (float) ($_GET['ttl'] ?? 4);
        $token = sprintf('%s/%s/%.2f/%d', $_GET['name'], bin2hex(random_bytes(8)), uptime() + $ttl, $for['version']);
        note('start', $_GET['name']);
        note('minted', $token);
        usleep((int) ($_GET['ms'] ?? 50) * 1000);
        return ['access_token' => $token, 'expires_in' => $ttl];
    });
    return ['token' => $token, 'uptime' => uptime()];
});
