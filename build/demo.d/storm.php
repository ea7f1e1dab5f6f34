<?php

/**
 * The visitors of build/demo: N clients that open the shop page ten times a second each, first with one cache,
 * then with the next; afterwards the table and what it means. Exits with 1 if `shared` broke its promise.
 */

declare(strict_types=1);

$given = getopt('', ['socket:', 'oauth:', 'hosts:', 'workers:', 'clients:', 'seconds:', 'ttl:', 'margin:']);
$hosts = (int) $given['hosts'];
$processes = $hosts * (int) $given['workers'];
$clients = (int) $given['clients'];
$seconds = (float) $given['seconds'];
$ttl = (float) $given['ttl'];
$usable = $ttl - min((float) $given['margin'], 0.2 * $ttl);

/** What a lifetime is to each cache: the time from a mint to the moment at which it wants another one. */
const REFRESH_RATIO = 0.8; // the default of sharedstate.token.refresh_ratio
$modes = [
    'process' => ['title' => 'per-process cache', 'lifetime' => $ttl],
    // APCu counts in whole seconds: "4" means until the fifth second has begun.
    'apcu' => ['title' => 'APCu (apcu_entry)', 'lifetime' => $usable + 1],
    'shared' => ['title' => 'shared_token_get', 'lifetime' => $usable * REFRESH_RATIO],
];

/** One request in this many also asks the OAuth server about its token; its time is not counted. */
const CHECK_EVERY = 20;
const PAUSE_S = 0.1;

function page(string $socket, string $cache, bool $check): CurlHandle
{
    $handle = curl_init("http://shop/?cache=$cache" . ($check ? '&check=1' : ''));
    curl_setopt_array($handle, [
        CURLOPT_UNIX_SOCKET_PATH => $socket,
        CURLOPT_RETURNTRANSFER => true,
        CURLOPT_TIMEOUT => 15,
        CURLOPT_PRIVATE => $check ? 'check' : 'plain',
    ]);
    return $handle;
}

/** @return list<array{client: string, id: string, exp: int}> */
function mints(string $oauth, string $client): array
{
    $all = json_decode(file_get_contents("$oauth/mints"), true, flags: JSON_THROW_ON_ERROR);
    return array_values(array_filter($all, static fn (array $mint): bool => $mint['client'] === $client));
}

/** One second of silence looks like a crash: a line every five seconds, or a live one on a terminal. */
function progress(string $title, float $elapsed, int $requests, bool $last): void
{
    static $printed = 0;
    $line = sprintf('    %-18s %3d s  %6d requests', $title, $elapsed, $requests);
    if (stream_isatty(STDERR)) {
        fwrite(STDERR, "\r$line" . ($last ? "\n" : ''));
    } elseif ($last || intdiv((int) $elapsed, 5) !== $printed) {
        fwrite(STDERR, "$line\n");
    }
    $printed = $last ? 0 : intdiv((int) $elapsed, 5);
}

/** @return array{requests: int, failed: list<string>, times: list<float>, answers: list<array>, elapsed: float} */
function storm(string $socket, string $cache, string $title, int $clients, float $seconds): array
{
    $multi = curl_multi_init();
    $start = microtime(true);
    // Client i is due at $due[i], or has a request in flight when it is not in the list.
    // All at once in the beginning: the cold burst after a deployment.
    $due = array_fill(0, $clients, $start);
    $owner = [];
    $sent = 0;
    $result = ['requests' => 0, 'failed' => [], 'times' => [], 'answers' => []];
    $shown = 0.0;
    do {
        $now = microtime(true);
        $elapsed = $now - $start;
        if ($elapsed < $seconds) {
            foreach ($due as $client => $when) {
                if ($when <= $now) {
                    $handle = page($socket, $cache, ++$sent % CHECK_EVERY === 0);
                    curl_multi_add_handle($multi, $handle);
                    $owner[spl_object_id($handle)] = $client;
                    unset($due[$client]);
                }
            }
        }
        curl_multi_exec($multi, $running);
        while ($done = curl_multi_info_read($multi)) {
            $handle = $done['handle'];
            $client = $owner[spl_object_id($handle)];
            unset($owner[spl_object_id($handle)]);
            $body = (string) curl_multi_getcontent($handle);
            $answer = json_decode($body, true);
            $result['requests']++;
            if (curl_getinfo($handle, CURLINFO_RESPONSE_CODE) === 200 && isset($answer['token'])) {
                $result['answers'][] = $answer;
                if (curl_getinfo($handle, CURLINFO_PRIVATE) === 'plain') {
                    $result['times'][] = curl_getinfo($handle, CURLINFO_TOTAL_TIME) * 1000;
                }
            } else {
                $result['failed'][] = curl_error($handle) ?: trim(strip_tags($body));
            }
            curl_multi_remove_handle($multi, $handle);
            // A little jitter, or the clients would march in step.
            $due[$client] = microtime(true) + PAUSE_S * random_int(80, 120) / 100;
        }
        if ($elapsed - $shown >= 1) {
            $shown = $elapsed;
            progress($title, $elapsed, $result['requests'], false);
        }
        // With nothing in flight curl returns at once, and this loop would take the processor from the shop.
        $owner === [] ? usleep(1000) : curl_multi_select($multi, 0.005);
    } while ($elapsed < $seconds || $owner !== []);
    $result['elapsed'] = microtime(true) - $start;
    progress($title, $result['elapsed'], $result['requests'], true);
    return $result;
}

/** @param list<float> $values sorted */
function quantile(array $values, float $share): float
{
    return $values === [] ? NAN : $values[(int) min(count($values) - 1, floor($share * count($values)))];
}

fwrite(STDERR, sprintf(
    "==> the storm: %d clients, %d php-fpm worker%s on %d host%s, %d s each\n",
    $clients, $processes, $processes === 1 ? '' : 's', $hosts, $hosts === 1 ? '' : 's', $seconds,
));
$rows = [];
foreach ($modes as $cache => $mode) {
    $result = storm($given['socket'], $cache, $mode['title'], $clients, $seconds);
    $expiry = array_column(mints($given['oauth'], "shop-$cache"), 'exp', 'id');
    $checked = array_filter($result['answers'], static fn (array $answer): bool => $answer['active'] !== null);
    sort($result['times']);
    $rows[$cache] = [
        'title' => $mode['title'],
        'requests' => $result['requests'],
        'failed' => count($result['failed']),
        'mints' => count($expiry),
        // Those that began: the first with the cold burst.
        'lifetimes' => (int) floor($result['elapsed'] / $mode['lifetime']) + 1,
        'p50' => quantile($result['times'], 0.5),
        'p99' => quantile($result['times'], 0.99),
        // Every answer is compared with the expiry that the OAuth server wrote down for that token …
        'expired' => count(array_filter($result['answers'], static fn (array $answer): bool =>
            $answer['served'] >= ($expiry[$answer['token']] ?? 0))),
        // … and for the sample the server was asked.
        'checked' => count($checked),
        'refused' => count(array_filter($checked, static fn (array $answer): bool => $answer['active'] === false)),
    ];
    if ($result['failed'] !== []) {
        fwrite(STDERR, '    first failure: ' . substr($result['failed'][0], 0, 300) . "\n");
    }
}

echo "\n", sprintf(
    "%-18s %9s %6s %10s %9s %9s %8s %16s %7s\n",
    '', 'requests', 'mints', 'lifetimes', 'p50 ms', 'p99 ms', 'expired', 'introspection', 'failed',
);
foreach ($rows as $row) {
    printf(
        "%-18s %9d %6d %10d %9.1f %9.1f %8d %16s %7d\n",
        $row['title'], $row['requests'], $row['mints'], $row['lifetimes'], $row['p50'], $row['p99'],
        $row['expired'], "{$row['refused']} of {$row['checked']} bad", $row['failed'],
    );
}
printf(<<<'TEXT'

    lifetimes: those that began. One lasts from a mint to the moment at which that cache wants another token: here %.1f, %.1f
    and %.1f s. The naive cache uses a token to its last second; sharedstate renews early, while the old one is served.
    expired: answers whose token had expired when it was served; introspection: what the OAuth server said of a sample.

    TEXT, ...array_values(array_column($modes, 'lifetime')));

$shared = $rows['shared'];
$process = $rows['process'];
$apcu = $rows['apcu'];
$per = static fn (array $row): string => sprintf('%.1f', $row['mints'] / $row['lifetimes']);
$kept = $shared['mints'] >= 1 && $shared['mints'] <= $shared['lifetimes'] && $shared['expired'] + $shared['refused'] + $shared['failed'] === 0;

echo "\n";
echo "Per-process caches minted {$per($process)} tokens per lifetime, about one for each of the $processes workers, and served "
    . ($process['expired'] > 0 ? "{$process['expired']} expired ones.\n" : "no expired one this time.\n");
echo $hosts === 1
    ? "APCu minted {$per($apcu)}: on one php-fpm master it is a good answer, except that every reader waits while one mints.\n"
    : "APCu minted {$per($apcu)}: one for each of the $hosts hosts, because it cannot see beyond its own php-fpm master.\n";
if ($apcu['expired'] > 0) {
    echo "It served {$apcu['expired']} expired tokens in spite of its margin: it counts in whole seconds, and so does the OAuth server.\n";
}
echo $kept
    ? "shared_token_get minted {$per($shared)}: one token per lifetime, seen by all, and nobody was served an expired one.\n"
    : "shared_token_get broke its promise: {$shared['mints']} mints in {$shared['lifetimes']} lifetimes, "
        . "{$shared['expired']} expired, {$shared['refused']} refused, {$shared['failed']} failed.\n";
exit($kept ? 0 : 1);
