<?php

declare(strict_types=1);

use SharedState\Tests\Support\TestCase;

/** A mint that needs another token. */
final class NestingTest extends TestCase
{
    /** Who waits for the other flight waits six seconds by default. */
    private const SOON_S = 5.0;

    public function test_another_name_inside_a_mint_works(): void
    {
        $said = $this->php(<<<'PHP'
            return shared_token_get('outer', fn () => 'outer-with-' . shared_token_get('inner', fn () => 'inner', ['ttl' => 60]), ['ttl' => 60]);
            PHP);
        self::assertSame('outer-with-inner', $said);
    }

    public function test_the_same_name_inside_its_own_mint_is_an_exception_at_once(): void
    {
        $said = $this->php(<<<'PHP'
            $start = microtime(true);
            $inner = null;
            $token = shared_token_get('crm', function () use (&$inner) {
                $inner = caught(fn () => shared_token_get('crm', fn () => 'inner', ['ttl' => 60]));
                return 'outer';
            }, ['ttl' => 60]);
            return [$inner, $token, microtime(true) - $start];
            PHP);
        self::assertContains('SharedState\\Exception', [$said[0]['class'] ?? null, ...($said[0]['parents'] ?? [])], json_encode($said));
        self::assertStringContainsString('crm', $said[0]['message']);
        self::assertSame('outer', $said[1]);
        self::assertLessThan(self::SOON_S, $said[2]);
    }

    /** @group extension */
    public function test_two_mints_that_need_each_other_end_quickly_and_name_both(): void
    {
        $code = static fn (string $mine, string $other): string => <<<PHP
            \$start = microtime(true);
            \$said = caught(fn () => shared_token_get('$mine', function () {
                note('start', '$mine');
                // Both are in their mint before either asks for the other.
                for (\$i = 0; \$i < 500 && substr_count(file_get_contents(getenv('MINT_LOG')), 'start') < 2; \$i++) { usleep(10_000); }
                return '$mine needs ' . shared_token_get('$other', fn () => '$other', ['ttl' => 60]);
            }, ['ttl' => 60, 'wait_ms' => 2000]));
            return [\$said, microtime(true) - \$start];
            PHP;
        // Two processes: a child of this test's own command line process runs the other half.
        $file = "$this->folder/other-half.php";
        file_put_contents($file, '<?php require ' . var_export($this->page('cli.php'), true) . '; $r = (function () {' . $code('two', 'one') . '})(); echo json_encode($r);');
        $said = $this->php(<<<PHP
            \$args = [PHP_BINARY, '-n', '-d', 'extension=' . getenv('SO'), '-d', 'sharedstate.host.dir=' . ini_get('sharedstate.host.dir'), '$file'];
            \$child = proc_open(\$args, [1 => ['pipe', 'w']], \$pipes);
            \$mine = (function () { {$code('one', 'two')} })();
            return [\$mine, json_decode(stream_get_contents(\$pipes[1]), true)];
            PHP, [], ['SO' => \SharedState\Tests\Support\Build::extension()]);
        foreach ($said as [$half, $took]) {
            self::assertLessThan(self::SOON_S, $took);
        }
        $failed = array_values(array_filter(array_column($said, 0), static fn (array $half): bool => isset($half['class'])));
        self::assertNotSame([], $failed, 'at least one cannot have what it needs: ' . json_encode($said));
        $texts = '';
        foreach ($failed as $half) {
            $texts .= $half['text'];
        }
        self::assertStringContainsString("one", $texts);
        self::assertStringContainsString("two", $texts);
    }

    public function test_a_suspended_mint_gives_the_main_flow_an_exception_and_can_be_finished(): void
    {
        $said = $this->php(<<<'PHP'
            $fiber = new Fiber(fn () => shared_token_get('crm', function () { Fiber::suspend(); return 'late'; }, ['ttl' => 60]));
            $fiber->start();
            $start = microtime(true);
            $main = caught(fn () => shared_token_get('crm', fn () => 'main', ['ttl' => 60]));
            $waited = microtime(true) - $start;
            $fiber->resume();
            return [$main, $waited, $fiber->getReturn(), shared_token_get('crm')];
            PHP);
        self::assertContains('SharedState\\Exception', $said[0]['parents'] ?? [], json_encode($said[0]));
        self::assertLessThan(self::SOON_S, $said[1], 'a thread never waits for itself');
        self::assertSame(['late', 'late'], array_slice($said, 2));
    }

    public function test_a_destroyed_fiber_frees_its_lease(): void
    {
        $said = $this->php(<<<'PHP'
            $fiber = new Fiber(fn () => shared_token_get('crm', function () { Fiber::suspend(); return 'never'; }, ['ttl' => 60]));
            $fiber->start();
            unset($fiber);
            gc_collect_cycles();
            $start = microtime(true);
            do {
                $said = caught(fn () => shared_token_get('crm', fn () => 'next', ['ttl' => 60]));
                usleep(20_000);
            } while (!isset($said['returned']) && microtime(true) - $start < 10);
            return [$said];
            PHP, ['token.failure_backoff_ms' => 200, 'token.lease_ms' => 30_000, 'token.wait_timeout_ms' => 31_000]);
        self::assertSame('next', $said[0]['returned'] ?? null, json_encode($said));
    }
}
