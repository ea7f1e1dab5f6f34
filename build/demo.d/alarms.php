<?php

/**
 * The driver of build/demo --alarms: each incident with the naive cache and with ours side by side, and what a real Prometheus
 * made of it. With --chart also as an SVG. Exits with 1 if an alert did not fire and clear for the naive one, or any fired for ours.
 */

declare(strict_types=1);

require __DIR__ . '/provider.php';

$given = getopt('', ['socket:', 'sheets:', 'prometheus:', 'workers:', 'clients:', 'hour:', 'ttl:', 'chart:']);
$hour = (float) $given['hour'];
const QUIET_S = 8;
const JOBS = ['naive' => '#c60', 'sharedstate' => '#06c'];
const TITLES = ['naive' => 'the naive cache', 'sharedstate' => 'sharedstate'];

/** What the alerts look at, in the windows that the rules have in this replay. */
$incidents = [
    [
        'title' => 'The token storm',
        'unit' => 'mints per lifetime',
        'alert' => 'SharedStateMintsAboveLifetimes',
        'limit' => 2,
        'seconds' => 40,
        'load' => static fn (): array => array_fill(0, (int) $given['clients'], ['shop.php?cache=process', 'shop.php?cache=shared']),
        'shown' => 'sum by (job) (rate(sharedstate_token_lifetime_seconds_total[15s])) / clamp_min(sum by (job) (avg_over_time(sharedstate_tokens_usable[15s])), 1)',
        'count' => 'sum by (job) (sharedstate_token_mint_count_total)',
        'counted' => 'mints',
    ],
    [
        'title' => 'The four-minute stampede',
        'unit' => 'provider calls per interval',
        'alert' => 'SharedStateProviderCallsAbovePlan',
        'limit' => 1.5,
        'seconds' => 3 * $hour,
        // One worker flat out would do it; a pause, so that Prometheus and its page are not what is slow.
        'load' => static fn (): array => array_fill(0, 2, ['rates.php?cache=naive&seconds=0.5&pause_us=1000', 'rates.php?cache=shared&seconds=0.5&pause_us=1000']),
        'shown' => 'sum by (job) (rate(sharedstate_fx_provider_calls_total[30s])) * on (job) max by (job) (sharedstate_fx_refresh_interval_seconds)',
        'count' => 'sum by (job) (sharedstate_fx_provider_calls_total)',
        'counted' => 'calls',
    ],
];

function ask(string $prometheus, string $what, array $query): array
{
    return json_decode(file_get_contents("$prometheus/api/v1/$what?" . http_build_query($query)), true, flags: JSON_THROW_ON_ERROR)['data'];
}

/** @return array<string, float> by job */
function now(string $prometheus, string $expression): array
{
    return array_map('floatval', array_column(array_map(static fn (array $one): array => [$one['metric']['job'], $one['value'][1]], ask($prometheus, 'query', ['query' => $expression])['result']), 1, 0));
}

/** @return array<string, array<int, float>> by job and second after $start; only those that are a number */
function course(string $prometheus, string $expression, float $start, float $end, float $zero): array
{
    $course = [];
    foreach (ask($prometheus, 'query_range', ['query' => $expression, 'start' => $start, 'end' => $end, 'step' => 1])['result'] as $series) {
        foreach ($series['values'] as [$time, $value]) {
            if (is_finite((float) $value)) {
                $course[$series['metric']['job'] ?? ''][(int) round($time - $zero)] = (float) $value;
            }
        }
    }
    return $course;
}

/**
 * Requests that are sent again 0.1 s after they are answered, until $while says no.
 *
 * @param list<string> $pages
 */
function load(string $socket, array $pages, callable $while): int
{
    $multi = curl_multi_init();
    $due = array_fill(0, count($pages), 0.0);
    $owner = [];
    $failed = 0;
    while (($on = $while()) || $owner !== []) {
        foreach ($on ? $due : [] as $client => $when) {
            if ($when <= microtime(true)) {
                $handle = curl_init("http://shop/{$pages[$client]}");
                curl_setopt_array($handle, [CURLOPT_UNIX_SOCKET_PATH => $socket, CURLOPT_RETURNTRANSFER => true, CURLOPT_TIMEOUT => 30]);
                curl_multi_add_handle($multi, $handle);
                $owner[spl_object_id($handle)] = $client;
                unset($due[$client]);
            }
        }
        curl_multi_exec($multi, $running);
        while ($done = curl_multi_info_read($multi)) {
            $failed += curl_getinfo($done['handle'], CURLINFO_RESPONSE_CODE) === 200 ? 0 : 1;
            $client = $owner[spl_object_id($done['handle'])];
            unset($owner[spl_object_id($done['handle'])]);
            curl_multi_remove_handle($multi, $done['handle']);
            $due[$client] = microtime(true) + 0.1 * random_int(80, 120) / 100;
        }
        $owner === [] ? usleep(1000) : curl_multi_select($multi, 0.005);
    }
    return $failed;
}

/** One incident from quiet to quiet. */
function replay(array $incident, array $given, float $hour): array
{
    $prometheus = $given['prometheus'];
    $publish = static fn () => publish($given['sheets'], $hour, ['naive', 'shared']);
    $until = static function (float $end) use ($publish): void {
        while (microtime(true) < $end) {
            $publish();
            usleep(20_000);
        }
    };
    fwrite(STDERR, "==> {$incident['title']}: {$incident['seconds']} s\n");
    $quiet = microtime(true);
    $until($quiet + QUIET_S);
    $before = now($prometheus, $incident['count']);
    $start = microtime(true);
    $failed = load($given['socket'], array_merge(...$incident['load']()), static function () use ($start, $incident, $publish): bool {
        $publish();
        return microtime(true) - $start < $incident['seconds'];
    });
    $end = microtime(true);
    $after = now($prometheus, $incident['count']);
    // Until everything has cleared, and a moment more for the picture.
    $firing = static fn (): array => ask($prometheus, 'query', ['query' => 'ALERTS{alertstate="firing"}'])['result'];
    for ($deadline = $end + 90; $firing() !== [] && microtime(true) < $deadline;) {
        $until(microtime(true) + 0.5);
    }
    $until(microtime(true) + 4);
    $last = microtime(true);
    $alerts = [];
    foreach (array_keys(JOBS) as $job) {
        $seen = course($prometheus, "count by (job) (ALERTS{alertstate=\"firing\", job=\"$job\"})", $quiet, $last, $start)[$job] ?? [];
        $own = course($prometheus, "count by (job) (ALERTS{alertstate=\"firing\", job=\"$job\", alertname=\"{$incident['alert']}\"})", $quiet, $last, $start)[$job] ?? [];
        $alerts[$job] = ['any' => array_keys($seen), 'own' => array_keys($own)];
    }
    return [
        'from' => (int) floor($quiet - $start), 'end' => $end - $start, 'to' => (int) ceil($last - $start), 'failed' => $failed, 'alerts' => $alerts,
        'count' => array_combine(array_keys(JOBS), array_map(static fn (string $job): int => (int) (($after[$job] ?? 0) - ($before[$job] ?? 0)), array_keys(JOBS))),
        'course' => course($prometheus, $incident['shown'], $quiet, $last, $start),
    ];
}

/** A panel for each incident: what the alert looks at, on a logarithmic scale, and below it when it fired. */
function chart(array $incidents, array $results): string
{
    [$width, $height, $left, $gap] = [860, 170, 60, 96];
    $svg = sprintf('<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" font-family="sans-serif" font-size="12">' . "\n"
        . '<rect width="100%%" height="100%%" fill="#fff"/>' . "\n", $left + $width + 20, count($results) * ($height + $gap) + 24);
    foreach ($results as $panel => $result) {
        $incident = $incidents[$panel];
        $offset = 30 + $panel * ($height + $gap);
        $most = max(10, ...array_map(static fn (array $course): float => max($course), array_values($result['course'])));
        [$low, $high] = [-1, (int) ceil(log10($most))];
        $y = static fn (float $value): float => round($offset + $height * (1 - (log10(max($value, 0.1)) - $low) / ($high - $low)), 1);
        $x = static fn (float $second): float => round($left + $width * ($second - $result['from']) / ($result['to'] - $result['from']), 1);
        $svg .= sprintf('<text x="%d" y="%d" font-weight="bold">%s: %s</text>' . "\n", $left, $offset - 10, $incident['title'], $incident['unit']);
        $svg .= sprintf('<rect x="%s" y="%d" width="%.1f" height="%d" fill="#f4f4f4"/>' . "\n", $x(0), $offset, $x($result['end']) - $x(0), $height);
        for ($power = $low; $power <= $high; $power++) {
            $svg .= sprintf('<line x1="%d" x2="%d" y1="%s" y2="%3$s" stroke="#ddd"/><text x="%d" y="%s" text-anchor="end" fill="#555">%s</text>' . "\n",
                $left, $left + $width, $y(10 ** $power), $left - 6, $y(10 ** $power) + 4, $power < 0 ? '0.1' : number_format(10 ** $power));
        }
        $svg .= sprintf('<line x1="%d" x2="%d" y1="%s" y2="%3$s" stroke="#c00" stroke-dasharray="5 4"/><text x="%1$d" y="%4$s" fill="#c00">the alert: above %5$s</text>' . "\n",
            $left, $left + $width, $y($incident['limit']), $y($incident['limit']) - 5, $incident['limit']);
        for ($second = 0; $second <= $result['to']; $second += 15) {
            $svg .= sprintf('<text x="%s" y="%d" text-anchor="middle" fill="#555">%d:00</text>' . "\n", $x($second), $offset + $height + 16, $second / 15);
        }
        foreach (JOBS as $job => $colour) {
            $points = [];
            foreach ($result['course'][$job] ?? [] as $second => $value) {
                $points[] = $x($second) . ',' . $y($value);
            }
            $svg .= sprintf('<polyline points="%s" fill="none" stroke="%s" stroke-width="2"/>' . "\n", implode(' ', $points), $colour);
        }
        foreach (array_keys(JOBS) as $number => $job) {
            $line = $offset + $height + 26 + 15 * $number;
            $svg .= sprintf('<rect x="%d" y="%d" width="%d" height="10" fill="#eee"/>', $left, $line, $width);
            foreach ($result['alerts'][$job]['any'] as $second) {
                $svg .= sprintf('<rect x="%.1f" y="%d" width="%.1f" height="10" fill="#c00"/>', $x($second), $line, max(0, min($x($second + 1) + 0.5, $left + $width) - $x($second)));
            }
            $svg .= sprintf('<text x="%d" y="%d" font-size="10" fill="#333">%s: %s</text>' . "\n", $left + 4, $line + 9, TITLES[$job],
                $result['alerts'][$job]['any'] === [] ? 'nothing fires' : 'fires');
        }
    }
    return $svg . sprintf('<text x="%d" y="%d" fill="#c60">— the naive cache</text><text x="%d" y="%2$d" fill="#06c">— sharedstate</text><text x="%4$d" y="%2$d" text-anchor="end" fill="#555">'
        . 'grey: the load; hours after its start, each compressed to 15 s; logarithmic</text>' . "\n</svg>\n",
        $left, count($results) * ($height + $gap) + 16, $left + 130, $left + $width);
}

$results = [];
foreach ($incidents as $number => $incident) {
    $results[$number] = replay($incident, $given, $hour);
}

printf("\n%-26s %-12s %8s %12s   %-36s %12s %12s\n", 'an hour takes 15 s', '', 'count', 'at most', 'alert', 'fires after', 'clears after');
$kept = true;
foreach ($results as $number => $result) {
    $incident = $incidents[$number];
    foreach (array_keys(JOBS) as $job) {
        ['any' => $any, 'own' => $own] = $result['alerts'][$job];
        $most = max([0.0, ...array_values($result['course'][$job] ?? [])]);
        $fires = $own === [] ? '-' : $own[0] . ' s';
        $clears = $own === [] ? '-' : sprintf('%d s', end($own) + 1 - $result['end']);
        printf("%-26s %-12s %8s %12s   %-36s %12s %12s\n", $job === 'naive' ? $incident['title'] : '', $job, number_format($result['count'][$job]) . ' ' . $incident['counted'],
            number_format($most, 1), $any === [] ? 'nothing fires' : ($own === [] ? 'another' : $incident['alert']), $fires, $clears);
        $kept = $kept && ($job === 'naive' ? $own !== [] && end($own) < $result['to'] - 1 : $any === []);
    }
    $kept = $kept && $result['failed'] === 0;
}
printf("\n    at most: %s; clears after: the end of the load. %d requests failed.\n", implode(' and ', array_column($incidents, 'unit')), array_sum(array_column($results, 'failed')));
if (($given['chart'] ?? '') !== '') {
    file_put_contents($given['chart'], chart($incidents, $results));
    fwrite(STDERR, "    the chart is in {$given['chart']}\n");
}
echo "\n", $kept ? "Each incident fired its alert for the naive cache and cleared after it; nothing fired for sharedstate.\n"
    : "This is not what the alerts promise.\n";
exit($kept ? 0 : 1);
