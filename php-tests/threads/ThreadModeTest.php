<?php

declare(strict_types=1);

use SharedState\Tests\Support\Build;
use SharedState\Tests\Support\Cli;
use SharedState\Tests\Support\TestCase;

/** A module fits the thread mode it was built for; docs/PLATFORMS.md quotes what PHP says to another. */
final class ThreadModeTest extends TestCase
{
    public function test_a_php_without_threads_says_what_it_lacks_and_goes_on_without_the_extension(): void
    {
        $mode = fn (string $php): string => Cli::command([$php, '-n', '-r', 'echo PHP_ZTS;'])->output;
        if ($mode(Build::php()) !== '1' || $mode('php') !== '0') {
            self::markTestSkipped('needs an extension for a thread-safe PHP, and a PHP that is none: build/test --zts');
        }
        $result = Cli::command(['php', '-n', '-d', 'display_errors=stderr', '-d', 'extension=' . Build::extension(), '-r',
            'echo "on ", extension_loaded("sharedstate") ? "with it" : "without it";']);
        self::assertSame('on without it', $result->output);
        self::assertMatchesRegularExpression('/Unable to load dynamic library .*undefined symbol: executor_globals_offset/', $result->errors);
    }
}
