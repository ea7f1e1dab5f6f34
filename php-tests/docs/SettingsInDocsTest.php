<?php

declare(strict_types=1);

use SharedState\Tests\Support\Cli;
use SharedState\Tests\Support\TestCase;

final class SettingsInDocsTest extends TestCase
{
    public function test_configuration_md_has_every_setting_with_its_default_and_no_other(): void
    {
        $result = Cli::run(['-r', 'echo json_encode(array_map(fn (array $entry): string => (string) $entry["global_value"], ini_get_all("sharedstate")));']);
        $real = json_decode($result->output, true);
        self::assertNotEmpty($real, $result->all());
        // `default`, or "empty" and what that means.
        preg_match_all('/^\| `(sharedstate\.[a-z_.]+)` \| (?:`([^`|]*)`|empty[^|]*) \| [^|]+ \|$/m', (string) file_get_contents(dirname(__DIR__, 2) . '/docs/CONFIGURATION.md'), $rows, PREG_SET_ORDER);
        $told = [];
        foreach ($rows as $row) {
            self::assertArrayNotHasKey($row[1], $told, 'once');
            $told[$row[1]] = $row[2] ?? '';
        }
        ksort($told);
        ksort($real);
        self::assertSame($real, $told);
    }

    /** A name in the docs that no longer exists sends an operator into the wrong direction. */
    public function test_every_setting_that_the_docs_name_exists(): void
    {
        $result = Cli::run(
            ['-r', 'echo json_encode(array_keys(ini_get_all("sharedstate")));'],
            ['sharedstate.host.dir' => $this->folder],
        );
        $settings = json_decode($result->output, true);
        $unknown = [];
        foreach ([...glob(dirname(__DIR__, 2) . '/docs/*.md'), dirname(__DIR__, 2) . '/README.md'] as $file) {
            preg_match_all('/`(?:php_admin_value\[)?(sharedstate\.[a-z_.]+[a-z])/', (string) file_get_contents($file), $found);
            foreach (array_diff(array_unique($found[1]), $settings) as $name) {
                $unknown[] = basename($file) . ": $name";
            }
        }
        // Files of this project, in backquotes as settings are.
        self::assertSame([], array_values(preg_grep('/: sharedstate\.(stub\.php|ini|so|php)$/', $unknown, PREG_GREP_INVERT)));
    }
}
