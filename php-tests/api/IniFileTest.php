<?php

declare(strict_types=1);

use SharedState\Tests\Support\Build;
use SharedState\Tests\Support\Cli;
use SharedState\Tests\Support\CliResult;
use SharedState\Tests\Support\TestCase;

/** sharedstate.ini is what packages and images install: an administrator believes the defaults in its comments. */
final class IniFileTest extends TestCase
{
    private const FILE = __DIR__ . '/../../build/package.d/sharedstate.ini';
    private const SETTING = '/^;(sharedstate\.[a-z_.]+) = "(.*)"$/m';

    /** @group extension */
    public function test_the_file_names_every_setting_with_its_default_and_nothing_else(): void
    {
        preg_match_all(self::SETTING, (string) file_get_contents(self::FILE), $found);
        $told = array_combine($found[1], $found[2]);
        self::assertCount(count($found[1]), $told, 'a setting is there twice');
        $result = Cli::run(['-r', 'echo json_encode(array_map(fn ($entry) => (string) $entry["global_value"], ini_get_all("sharedstate")));']);
        $real = json_decode($result->output, true);
        ksort($told);
        ksort($real);
        self::assertSame($real, $told);
    }

    public function test_every_line_is_a_comment_but_the_one_that_loads_the_extension(): void
    {
        $lines = preg_grep('/^(;.*)?$/', file(self::FILE, FILE_IGNORE_NEW_LINES), PREG_GREP_INVERT);
        self::assertSame(['extension = sharedstate'], array_values($lines));
    }

    /** @group extension */
    public function test_an_uncommented_default_is_accepted(): void
    {
        $text = preg_replace(self::SETTING, '$1 = "$2"', (string) file_get_contents(self::FILE));
        $text = str_replace('sharedstate.host.dir = ""', "sharedstate.host.dir = \"$this->folder\"", $text, $folders);
        self::assertSame(1, $folders);
        $result = $this->with($text);
        self::assertSame('T', $result->output, $result->all());
        self::assertSame('', $result->errors);
        self::assertStringContainsString('sharedstate.prefix', $this->with(str_replace('prefix = "', 'prefix = "{', $text))->all(),
            'a value that is refused would be seen');
    }

    /** What a script says with $text as its whole configuration. */
    private function with(string $text): CliResult
    {
        file_put_contents("$this->folder/php.ini", str_replace('extension = sharedstate', 'extension = ' . Build::extension(), $text));
        return Cli::command([Build::php(), '-c', "$this->folder/php.ini", '-d', 'display_errors=stderr', '-r',
            'echo shared_token_get("crm", fn () => "T", ["ttl" => 60]);'], ['PHP_INI_SCAN_DIR' => "$this->folder/none"]);
    }
}
