<?php

declare(strict_types=1);

use SharedState\Tests\Support\Cli;
use SharedState\Tests\Support\TestCase;

/** Every PHP block that a reader may copy runs, and is worth what it says after "// =>". */
final class ExamplesInDocsTest extends TestCase
{
    private const FILES = ['README.md', 'docs/*.md', 'examples/*.md', 'stubs/*.md'];

    /** @return iterable<string, array{string}> by file and line */
    public static function blocks(): iterable
    {
        $root = dirname(__DIR__, 2);
        foreach (self::FILES as $pattern) {
            foreach (glob("$root/$pattern") as $file) {
                preg_match_all('/^```php\n(.*?)^```$/ms', (string) file_get_contents($file), $found, PREG_OFFSET_CAPTURE);
                foreach ($found[1] as [$block, $offset]) {
                    $line = 1 + substr_count(file_get_contents($file, length: $offset), "\n");
                    yield substr($file, strlen($root) + 1) . ":$line" => [$block];
                }
            }
        }
    }

    /** @dataProvider blocks */
    #[\PHPUnit\Framework\Attributes\DataProvider('blocks')]
    public function test_the_example_runs_and_says_the_truth(string $block): void
    {
        $redis = $this->redis();
        $file = "$this->folder/example.php";
        file_put_contents($file, self::program($block, $this->page('docs.php')));
        $extensions = ['-d', 'extension=apcu', '-d', 'apc.enable_cli=1', '-d', 'extension=igbinary', '-d', 'extension=redis'];
        $result = Cli::run([...$extensions, $file], ['sharedstate.host.dir' => $this->folder], ['REDIS_SOCKET' => $redis->socket()]);
        self::assertSame([0, ''], [$result->status, $result->errors], $result->all());
    }

    public function test_an_example_that_is_wrong_is_found(): void
    {
        $file = "$this->folder/wrong.php";
        file_put_contents($file, self::program("1 + 1;   // => 3\n", $this->page('docs.php')));
        self::assertSame(3, Cli::run([$file], ['sharedstate.host.dir' => $this->folder])->status);
        file_put_contents($file, self::program("echo \$nowhere;\n", $this->page('docs.php')));
        self::assertNotSame(0, Cli::run([$file], ['sharedstate.host.dir' => $this->folder])->status);
    }

    /** The block behind the page it is cut out of; "expression;  // => value" becomes a comparison. */
    private static function program(string $block, string $page): string
    {
        preg_match_all('/^use .+;$/m', $block, $imports);
        $block = preg_replace('/^(use .+;|<\?php|declare\(strict_types=1\);)$/m', '', $block);
        $block = preg_replace_callback(
            '{^(?:(\$\w+) = )?(.+);\s+// => (.+)$}m',
            static fn (array $m): string => ($m[1] === '' ? '' : "$m[1] = $m[2]; ") . '\documented(' . $m[3] . ', '
                . ($m[1] ?: $m[2]) . ', ' . var_export($m[0], true) . ');',
            $block,
        );
        return "<?php\n" . implode("\n", $imports[0]) . "\nrequire " . var_export($page, true) . ";\n$block";
    }
}
