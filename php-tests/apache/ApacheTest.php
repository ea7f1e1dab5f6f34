<?php

declare(strict_types=1);

use SharedState\Tests\Support\Apache;
use SharedState\Tests\Support\TestCase;

/** PHP inside of Apache: what a request is there, and when it is over. */
final class ApacheTest extends TestCase
{
    protected function setUp(): void
    {
        parent::setUp();
        if (posix_geteuid() !== 0 || !is_file(Apache::module())) {
            self::markTestSkipped('mod_php of this PHP is not installed, or this is not root, who starts it');
        }
    }

    /** @return list<array{string}> */
    public static function buffering(): array
    {
        return [['4096'], ['0'], ['1']];
    }

    /**
     * PHP's own buffer is 4096 bytes in every php.ini of a distribution, and frameworks open further ones.
     *
     * @dataProvider buffering
     */
    public function test_the_page_is_at_its_reader_before_a_deferred_renewal_begins(string $buffering): void
    {
        $apache = new Apache($this->folder, ['output_buffering' => $buffering]);
        $apache->page('page.php', <<<'PHP'
            ob_start();
            $mint = function () {
                usleep(isset($_GET['slow']) ? 2_000_000 : 0);
                file_put_contents(dirname(__DIR__) . '/table/minted', sprintf("%.3f\n", microtime(true)), FILE_APPEND);
                return ['access_token' => 't', 'expires_in' => 30];
            };
            ob_start();
            echo shared_token_get('crm', $mint, ['margin' => 1, 'refresh_ratio' => 0.02, 'defer' => true]), "\nend of page\n";
            PHP);
        $apache->get('page.php');
        usleep(1_000_000);
        [$said, , $connection] = $apache->get('page.php?slow', 'end of page');
        $read = microtime(true);
        self::assertStringContainsString("t\nend of page\n", $said);
        stream_get_contents($connection);
        $this->until('the renewal', fn (): bool => count(file("$this->folder/table/minted")) === 2);
        self::assertLessThan((float) file("$this->folder/table/minted")[1] - 1.0, $read, 'read well before the renewal was over');
    }

    /** A handler of callbacks is called when all that PHP loaded after it has ended its request. */
    public function test_a_session_store_that_needs_a_token_keeps_its_sessions(): void
    {
        $apache = new Apache($this->folder, ['session.use_cookies' => '0', 'session.cache_limiter' => '']);
        $apache->page('session.php', <<<'PHP'
            $file = dirname(__DIR__) . '/table/session';
            $token = fn () => shared_token_get('vault', fn () => ['access_token' => 'T', 'expires_in' => 3600]);
            session_set_save_handler(fn ($path, $name) => true, fn () => true,
                function ($id) use ($file, $token) { $token(); return (string) @file_get_contents($file); },
                function ($id, $data) use ($file, $token) { $token(); return (bool) file_put_contents($file, $data); },
                fn ($id) => true, fn ($age) => 0);
            session_id('one');
            session_start();
            echo 'n=', $_SESSION['n'] = ($_SESSION['n'] ?? 0) + 1;
            PHP);
        foreach ([1, 2, 3] as $n) {
            self::assertStringContainsString("n=$n", $apache->get('session.php')[0]);
        }
        self::assertDoesNotMatchRegularExpression('/SharedState|Fatal|Warning/', (string) file_get_contents("$this->folder/apache.log"));
    }
}
