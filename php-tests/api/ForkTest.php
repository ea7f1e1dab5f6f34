<?php

declare(strict_types=1);

use SharedState\Tests\Support\TestCase;

/** pcntl_fork: an inherited descriptor would share the parent's locks. */
final class ForkTest extends TestCase
{
    protected function setUp(): void
    {
        parent::setUp();
        if (!extension_loaded('pcntl')) {
            self::markTestSkipped('needs pcntl');
        }
    }

    /** @group processes */
    public function test_twenty_children_of_a_process_that_used_the_extension_mint_once(): void
    {
        $this->assertTwentyChildrenMintOnce([]);
    }

    /** @group extension */
    public function test_twenty_children_of_a_process_that_used_redis_mint_once(): void
    {
        $this->assertTwentyChildrenMintOnce(['redis.dsn' => $this->redis()->dsn()]);
    }

    /** @param array<string, string> $settings */
    private function assertTwentyChildrenMintOnce(array $settings): void
    {
        $said = $this->php(<<<'PHP'
            // The parent has its table, its connection and its locks open.
            shared_token_get('warm', fn () => 'warm', ['ttl' => 60]);
            $pids = $pipes = [];
            for ($i = 0; $i < 20; $i++) {
                $pair = stream_socket_pair(STREAM_PF_UNIX, STREAM_SOCK_STREAM, 0);
                if (($pid = pcntl_fork()) === 0) {
                    $token = shared_token_get('cold', fn () => mint('cold', 200, 60.0));
                    fwrite($pair[1], shared_token_get('warm') . ' ' . $token . "\n");
                    fclose($pair[1]);
                    posix_kill(getmypid(), SIGKILL); // not a second time through the test's own shutdown
                }
                fclose($pair[1]);
                $pipes[] = $pair[0];
            }
            $lines = array_map(fn ($pipe) => trim((string) fgets($pipe)), $pipes);
            while (pcntl_wait($status) > 0);
            return [$lines, shared_token_get('cold'), shared_token_get('warm')];
            PHP, $settings);
        self::assertSame(["warm $said[1]"], array_values(array_unique($said[0])));
        self::assertSame('warm', $said[2]);
        self::assertSame(1, $this->mints->mints('cold'));
    }

    public function test_a_fork_inside_a_mint_leaves_the_parent_its_right(): void
    {
        $said = $this->php(<<<'PHP'
            $child = null;
            $token = shared_token_get('crm', function () use (&$child) {
                note('start', 'crm');
                if (($child = pcntl_fork()) === 0) {
                    // The child is not the minter: it waits, and is told so; it must not mint beside its parent.
                    $said = caught(fn () => shared_token_get('crm', function () { note('start', 'crm'); return 'child'; }, ['ttl' => 60, 'wait_ms' => 300]));
                    posix_kill(getmypid(), SIGKILL);
                }
                pcntl_waitpid($child, $status);
                usleep(100_000);
                return 'parent';
            }, ['ttl' => 60]);
            return [$token, shared_token_get('crm')];
            PHP);
        self::assertSame(['parent', 'parent'], $said);
        self::assertSame(1, $this->mints->mints('crm'));
    }

    /** @group processes */
    public function test_a_child_that_exits_normally_leaves_the_parents_state_alone(): void
    {
        $said = $this->php(<<<'PHP'
            shared_token_get('crm', fn () => 'T', ['ttl' => 60]);
            for ($i = 0; $i < 5; $i++) {
                if (($pid = pcntl_fork()) === 0) {
                    shared_token_get("child:$i", fn () => 'C', ['ttl' => 60]);
                    exit(shared_token_get('crm') === 'T' ? 0 : 1);
                }
                pcntl_waitpid($pid, $status);
                $codes[] = pcntl_wexitstatus($status);
            }
            return [$codes, shared_token_get('crm'), shared_token_get('child:3')];
            PHP);
        self::assertSame([[0, 0, 0, 0, 0], 'T', 'C'], $said);
    }
}
