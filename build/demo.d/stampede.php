<?php

/**
 * The driver of build/demo --fx: the same hours with the naive cache and then with fx_rate, what each did to the store and to the
 * provider, as a table and, with --chart, as an SVG. Exits with 1 if fx_rate did more than one call an hour.
 */

declare(strict_types=1);

require __DIR__ . '/provider.php';

$given = getopt('', ['socket:', 'provider:', 'sheets:', 'redis:', 'workers:', 'hours:', 'hour:', 'chart:']);
$hour = (float) $given['hour'];
$hours = (int) $given['hours'];
$workers = (int) $given['workers'];
const MODES = ['naive' => 'cache until the hour', 'shared' => 'fx_rate'];

/** @return array{calls: int, commands: int, writes: int} so far */
function counts(string $mode, string $provider, Redis $redis): array
{
    preg_match('/requests\s+(\d+) (\d+) (\d+)/', file_get_contents("$provider/status"), $found);
    static $asked = 0;
    $asked++;
    $calls = [];
    foreach ($redis->info('commandstats') as $name => $text) {
        $calls[$name] = preg_match('/calls=(\d+)/', $text, $number) ? (int) $number[1] : 0;
    }
    $sum = static fn (string ...$names): int => array_sum(array_intersect_key($calls, array_flip(array_map(static fn ($name) => "cmdstat_$name", $names))));
    // Of fx_rate every command to the store is a script, and one that publishes a sheet adds a line to the log.
    $writes = $mode === 'naive' ? $sum('set') : $sum('xadd');
    return ['calls' => (int) $found[3] - $asked, 'commands' => $sum('get', 'evalsha') + ($mode === 'naive' ? $writes : 0), 'writes' => $writes];
}

/** @return array{minutes: list<array{calls: int, commands: int, writes: int}>, shop_reads: int, failed: int, first: ?string} */
function replay(array $given, string $mode, float $hour, int $hours, int $workers): array
{
    $redis = new Redis();
    $redis->connect($given['redis']);
    $redis->flushAll();
    // Begin with the hour, in step with the sheets.
    do {
        publish($given['sheets'], $hour, array_keys(MODES));
        usleep(1000);
    } while (fmod(microtime(true), $hour) > 0.02);
    $multi = curl_multi_init();
    $seconds = $hours * $hour;
    for ($i = 0; $i < $workers; $i++) {
        $handle = curl_init("http://shop/?cache=$mode&seconds=$seconds");
        curl_setopt_array($handle, [CURLOPT_UNIX_SOCKET_PATH => $given['socket'], CURLOPT_RETURNTRANSFER => true, CURLOPT_TIMEOUT => (int) $seconds + 30]);
        curl_multi_add_handle($multi, $handle);
        $handles[] = $handle;
    }
    $start = microtime(true);
    $before = counts($mode, $given['provider'], $redis);
    $minutes = [];
    do {
        publish($given['sheets'], $hour, array_keys(MODES));
        curl_multi_exec($multi, $running);
        curl_multi_select($multi, 0.002);
        if (microtime(true) - $start >= (count($minutes) + 1) * $hour / MINUTES && count($minutes) < $hours * MINUTES) {
            $now = counts($mode, $given['provider'], $redis);
            $minutes[] = array_map(static fn (int $now, int $then): int => max(0, $now - $then), $now, $before);
            $before = $now;
            if (count($minutes) % MINUTES === 0) {
                fprintf(STDERR, "    %-20s hour %d of %d\n", MODES[$mode], count($minutes) / MINUTES, $hours);
            }
        }
    } while ($running > 0);
    $answers = array_map(static fn ($handle) => json_decode((string) curl_multi_getcontent($handle), true) ?? ['reads' => 0, 'failed' => 1, 'first' => curl_multi_getcontent($handle)], $handles);
    return [
        'minutes' => array_map(static fn (array $one): array => array_combine(['calls', 'commands', 'writes'], $one), $minutes),
        'shop_reads' => array_sum(array_column($answers, 'reads')),
        'failed' => array_sum(array_column($answers, 'failed')),
        'first' => current(array_filter(array_column($answers, 'first'))) ?: null,
    ];
}

/** Provider calls and store writes by the simulated minute, one panel per cache, on one logarithmic scale. */
function chart(array $results, int $hours): string
{
    [$width, $height, $left, $gap] = [860, 150, 60, 46];
    $most = 1;
    foreach ($results as $result) {
        $most = max($most, ...array_column($result['minutes'], 'writes'), ...array_column($result['minutes'], 'calls'));
    }
    $top = 10 ** ceil(log10($most));
    $y = static fn (int $value, float $offset): float => round($offset + $height - ($value < 1 ? 0 : $height * (log10($value) + 0.3) / (log10($top) + 0.3)), 1);
    $svg = sprintf('<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" font-family="sans-serif" font-size="12">' . "\n"
        . '<rect width="100%%" height="100%%" fill="#fff"/>' . "\n", $left + $width + 20, 2 * ($height + $gap) + 34);
    $panel = 0;
    foreach ($results as $mode => $result) {
        $offset = 30 + $panel++ * ($height + $gap);
        $svg .= sprintf('<text x="%d" y="%d" font-weight="bold">%s</text>' . "\n", $left, $offset - 10, MODES[$mode]);
        for ($power = 1; $power <= $top; $power *= 10) {
            $line = $y($power, $offset);
            $svg .= sprintf('<line x1="%d" x2="%d" y1="%s" y2="%3$s" stroke="#ddd"/><text x="%4$d" y="%5$s" text-anchor="end" fill="#555">%6$s</text>' . "\n",
                $left, $left + $width, $line, $left - 6, $line + 4, number_format($power));
        }
        for ($h = 0; $h <= $hours; $h++) {
            $x = $left + $width * $h / $hours;
            $svg .= sprintf('<line x1="%1$s" x2="%1$s" y1="%2$d" y2="%3$d" stroke="#ddd"/><text x="%1$s" y="%4$d" text-anchor="middle" fill="#555">%5$d:00</text>' . "\n",
                $x, $offset, $offset + $height, $offset + $height + 16, $h);
        }
        foreach (['writes' => '#c60', 'calls' => '#06c'] as $what => $colour) {
            foreach ($result['minutes'] as $minute => $counts) {
                if ($counts[$what] > 0) {
                    $x = $left + $width * $minute / (MINUTES * $hours);
                    $top_y = $y($counts[$what], $offset);
                    $svg .= sprintf('<rect x="%.1f" y="%.1f" width="%.1f" height="%.1f" fill="%s" fill-opacity="0.7"/>' . "\n",
                        $x + ($what === 'calls' ? 1.4 : 0), $top_y, 1.4, $offset + $height - $top_y, $colour);
                }
            }
        }
    }
    return $svg . sprintf('<text x="%d" y="%d" fill="#06c">■ provider calls</text><text x="%d" y="%2$d" fill="#c60">■ store writes</text>'
        . '<text x="%4$d" y="%2$d" text-anchor="end" fill="#555">a simulated minute, logarithmic</text>' . "\n</svg>\n", $left, 2 * ($height + $gap) + 28, $left + 130, $left + $width);
}

fwrite(STDERR, sprintf("==> the stampede: %d hours of %.0f s, %d workers reading flat out, the provider publishes at minute four\n", $hours, $hour, $workers));
$results = [];
foreach (array_keys(MODES) as $mode) {
    $results[$mode] = replay($given, $mode, $hour, $hours, $workers);
    if ($results[$mode]['first'] !== null) {
        fwrite(STDERR, "    first failure: {$results[$mode]['first']}\n");
    }
}

printf("\n%-22s %12s %16s %16s %18s %22s %8s\n", 'a simulated hour', 'shop reads', 'store commands', 'store writes', 'provider calls', 'in minutes 0-4', 'failed');
foreach ($results as $mode => $result) {
    $sum = static fn (string $what, callable $when): int => array_sum(array_column(array_filter($result['minutes'], $when, ARRAY_FILTER_USE_KEY), $what));
    $all = static fn (): bool => true;
    $first = static fn (int $minute): bool => $minute % MINUTES < MINUTE_FOUR;
    $results[$mode]['calls'] = $sum('calls', $all);
    printf("%-22s %12s %16s %16s %18s %22s %8d\n", MODES[$mode], number_format($result['shop_reads'] / $hours), number_format($sum('commands', $all) / $hours),
        number_format($sum('writes', $all) / $hours, 1), number_format($sum('calls', $all) / $hours, 1),
        number_format($sum('calls', $first) / $hours, 1) . ' calls', $result['failed']);
}
if (($given['chart'] ?? '') !== '') {
    file_put_contents($given['chart'], chart($results, $hours));
    fwrite(STDERR, "    the chart is in {$given['chart']}\n");
}
$kept = $results['shared']['failed'] === 0 && $results['shared']['calls'] <= $hours + 1;
echo "\n", $kept
    ? "fx_rate asked the provider {$results['shared']['calls']} times in $hours hours: as often as the age of the sheet wants it, whoever reads.\n"
    : "fx_rate broke its promise: {$results['shared']['calls']} calls in $hours hours, {$results['shared']['failed']} failed reads.\n";
exit($kept ? 0 : 1);
