<?php

declare(strict_types=1);

namespace SharedState\Tests\Support;

use RuntimeException;

/** Runs one PHP command line process to its end, with the extension loaded, or with the polyfill: see {@see Build::polyfill()}. */
final class Cli
{
    /**
     * @param list<string> $arguments after the options: a file, or -r and code, or --ri and a name
     * @param array<string, string|int|float> $ini
     * @param array<string, string> $environment on top of ours
     * @param list<string> $wrapper what starts PHP
     */
    public static function run(array $arguments, array $ini = [], array $environment = [], float $timeout = 30.0, bool $loaded = true, array $wrapper = []): CliResult
    {
        $command = [...$wrapper, ...Build::watched(), '-n'];
        if ($loaded) {
            array_push($command, ...Build::loading());
        }
        foreach (['display_errors' => 'stderr', 'error_reporting' => E_ALL] + $ini as $key => $value) {
            // Quoted, or an "=" in an address would be taken for PHP's own syntax.
            array_push($command, '-d', "$key=\"$value\"");
        }
        // Valgrind takes its time.
        return self::command([...$command, ...$arguments], $environment, getenv('MEMCHECK') ? 10 * $timeout : $timeout);
    }

    /**
     * @param list<string> $command
     * @param array<string, string> $environment on top of ours
     */
    public static function command(array $command, array $environment = [], float $timeout = 30.0): CliResult
    {
        // The kernel's clock stops a test that hangs, even when the tests themselves were killed.
        $command = ['timeout', '--kill-after=1', (string) $timeout, ...$command];
        $output = tmpfile();
        $errors = tmpfile();
        $start = microtime(true);
        $handle = proc_open($command, [['file', '/dev/null', 'r'], $output, $errors], $pipes, null, $environment + getenv());
        if ($handle === false) {
            throw new RuntimeException('cannot start ' . implode(' ', $command));
        }
        $status = proc_close($handle);
        $elapsed = microtime(true) - $start;
        rewind($output);
        rewind($errors);
        $result = new CliResult($status, (string) stream_get_contents($output), (string) stream_get_contents($errors), $elapsed);
        if (($complaints = Complaints::in($result->errors)) !== []) {
            throw new RuntimeException('a process complains: ' . implode("\n", $complaints));
        }
        return $result;
    }
}
