<?php

/**
 * process.php SOCKET-WITHOUT SOCKET-WITH PHP OPTION...: what the options, which load the extension, add to the start of
 * a process; and to the private memory of a php-fpm worker, of which one without and one with it listen on the sockets.
 */

declare(strict_types=1);

const TIMES = 50;

use SharedState\Tests\Support\Crowd;

require dirname(__DIR__, 2) . '/php-tests/support/Response.php';
require dirname(__DIR__, 2) . '/php-tests/support/Crowd.php';

[, $socketWithout, $socketWith, $php] = $argv;
$options = array_slice($argv, 4);

/** @return array{float, string} milliseconds from start to end, and the output */
function run(array $command): array
{
    $start = hrtime(true);
    $process = proc_open($command, [['file', '/dev/null', 'r'], ['pipe', 'w']], $pipes);
    $output = stream_get_contents($pipes[1]);
    if (proc_close($process) !== 0) {
        fwrite(STDERR, implode(' ', $command) . " failed\n$output");
        exit(1);
    }
    return [(hrtime(true) - $start) / 1e6, $output];
}

function median(array $values): float
{
    sort($values);
    return $values[intdiv(count($values), 2)];
}

$without = $with = [];
for ($i = 0; $i < TIMES; $i++) {
    $without[] = run([$php, '-n', '-r', ''])[0];
    $with[] = run([$php, '-n', ...$options, '-r', ''])[0];
}
printf("\nstart and end of a process, median of %d: %.2f ms without, %.2f ms with the extension: %+.2f ms (aim: at most 1 ms)\n",
    TIMES, median($without), median($with), median($with) - median($without));

/** Kilobytes of the worker that has made a mint and a thousand hits, where it can. */
function worker(string $socket): int
{
    $crowd = new Crowd();
    $crowd->send($socket, __DIR__ . '/memory.php');
    $answer = array_values($crowd->finish())[0];
    if (preg_match('/^\d+$/', $answer->body) !== 1) {
        fwrite(STDERR, $answer->describe() . "\n");
        exit(1);
    }
    return (int) $answer->body;
}

$before = worker($socketWithout);
$after = worker($socketWith);
printf("private memory of a php-fpm worker: %d kB without, %d kB with the extension in use: %+d kB (aim: at most 1,024 kB)\n",
    $before, $after, $after - $before);
