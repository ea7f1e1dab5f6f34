<?php

declare(strict_types=1);

use SharedState\Tests\Support\TestCase;

/** Lines an operator acts on: where they go, how many, and what is never in them. */
final class LogTest extends TestCase
{
    private const LINE = '/^(?:\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ )?sharedstate\[(\d+)\]: (error|warning|info|debug): \S.*$/';

    private const FAIL = '$fail = static function (string $name) { try { shared_token_get($name, static fn () => throw new RuntimeException("two\nlines")); } catch (SharedState\MintFailed) {} };';

    /** @dataProvider sinks */
    public function test_a_line_says_when_how_bad_which_process_and_what(string $sink): void
    {
        $file = "$this->folder/sharedstate.log";
        $result = $this->cli(self::FAIL . '$fail("crm"); return getmypid();', ['log' => $sink === 'file' ? $file : $sink]);
        $lines = explode("\n", trim($sink === 'file' ? file_get_contents($file) : $result->errors));
        self::assertCount(1, $lines, 'a message of two lines is one line: ' . implode("\n", $lines));
        self::assertMatchesRegularExpression(self::LINE, $lines[0]);
        self::assertStringContainsString('warning: minting token "crm" failed, and nothing is served: RuntimeException: two lines', $lines[0]);
        preg_match(self::LINE, $lines[0], $found);
        self::assertSame(json_decode(substr(strrchr($result->output, "\n"), 1), true)['result'], (int) $found[1]);
    }

    public static function sinks(): array
    {
        return ["PHP's log" => [''], 'standard error' => ['stderr'], 'a file' => ['file']];
    }

    /** @group extension */
    public function test_a_file_that_was_rotated_is_followed(): void
    {
        $file = "$this->folder/sharedstate.log";
        $this->php(self::FAIL . '$fail("one"); rename($argv = ini_get("sharedstate.log"), "$argv.1"); $fail("two"); return [];', ['log' => $file]);
        self::assertStringContainsString('"one"', file_get_contents("$file.1"));
        self::assertStringNotContainsString('"two"', file_get_contents("$file.1"));
        self::assertStringContainsString('"two"', file_get_contents($file));
    }

    public function test_a_file_that_cannot_be_written_leaves_the_lines_to_phps_log(): void
    {
        $result = $this->cli(self::FAIL . '$fail("crm"); return [];', ['log' => "$this->folder/missing/log"]);
        self::assertStringContainsString('"crm" failed', $result->errors);
    }

    /** @group extension */
    public function test_of_forty_failures_at_once_five_are_told_and_the_number_of_the_others(): void
    {
        $result = $this->cli(self::FAIL . 'for ($n = 0; $n < 40; $n++) { $fail("name$n"); } return [];', ['log' => 'stderr']);
        $lines = preg_grep('/and nothing is served/', explode("\n", $result->errors));
        self::assertCount(5, $lines, $result->errors);
    }

    /** @group extension */
    public function test_each_level_tells_what_the_one_before_tells_and_more(): void
    {
        $before = [];
        foreach (['off' => 0, 'warning' => 1, 'info' => 3] as $level => $count) {
            $file = "$this->folder/$level.txt";
            $folder = "$this->folder/table-$level";
            mkdir($folder);
            $this->php(self::FAIL . '$fail("crm"); shared_token_get("shop", static fn () => "x", ["ttl" => 60]); return [];', ['log' => $file, 'log_level' => $level, 'host.dir' => $folder]);
            $lines = is_file($file) ? file($file, FILE_IGNORE_NEW_LINES) : [];
            self::assertGreaterThanOrEqual($count, count($lines), $level);
            foreach ($lines as $line) {
                self::assertMatchesRegularExpression(self::LINE, $line);
            }
            self::assertGreaterThanOrEqual(count($before), count($lines));
            $before = $lines;
        }
        self::assertNotEmpty(preg_grep('/info: token "shop" was minted in \S+: cold$/', $before));
    }

    public function test_a_sink_that_is_none_is_refused_with_the_ones_that_are(): void
    {
        $sentence = $this->php('try { shared_token_get("crm"); } catch (SharedState\ConfigError $error) { return [$error->getMessage()]; }', ['log' => 'logs/x']);
        self::assertSame(['sharedstate.log is "logs/x", but must be an absolute path, stderr, syslog, or empty'], $sentence);
    }
}
