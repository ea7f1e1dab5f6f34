<?php

declare(strict_types=1);

namespace SharedState\Tests\Support;

/** build/sharedstatectl, as an operator runs it. */
final class Ctl
{
    public static function script(): string
    {
        return dirname(__DIR__, 2) . '/build/sharedstatectl';
    }

    /**
     * @param list<string> $words
     * @param array<string, string|int> $settings sharedstate.*, without that prefix
     * @param array<string, string> $environment
     */
    public static function run(array $words, array $settings, array $environment = []): CliResult
    {
        return Cli::command(self::command($words, $settings), $environment);
    }

    /**
     * @param list<string> $words
     * @param array<string, string|int> $settings
     * @return list<string>
     */
    public static function command(array $words, array $settings, ?string $extension = null, ?string $script = null): array
    {
        $command = [Build::php(), '-n', '-d', 'extension=' . ($extension ?? Build::extension()), '-d', 'display_errors=stderr', '-d', 'error_reporting=-1'];
        foreach ($settings as $name => $value) {
            array_push($command, '-d', "sharedstate.$name=\"$value\"");
        }
        return [...$command, $script ?? self::script(), ...$words];
    }
}
