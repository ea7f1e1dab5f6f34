<?php

declare(strict_types=1);

use SharedState\Tests\Support\TestCase;

/** Without `sharedstate.log` whoever runs php-fpm still finds every line. */
final class LogLinesTest extends TestCase
{
    public function test_a_line_of_a_request_goes_to_the_web_server_with_its_answer(): void
    {
        $host = $this->host('north', ['host.dir' => $this->folder]);
        $response = $this->get($host, 'token.php', ['name' => 'crm', 'ms' => 0, 'ttl' => -5]);
        self::assertStringContainsString('sharedstate[', $response->errors);
        self::assertStringContainsString('warning: minting token "crm"', $response->errors);
    }

    /**
     * The leader's, while no page is asked for. This machine has no system logger, or this host's error output stays empty.
     *
     * @group slow
     */
    public function test_a_line_of_the_background_thread_waits_for_a_request_and_not_for_ever(): void
    {
        $redis = $this->redis();
        $host = $this->host('north', ['redis.dsn' => $redis->dsn()], ['pm.max_children' => 1]);
        $this->tokenOf($host);
        $redis->stop();
        usleep(600_000);
        $response = $this->get($host, 'token.php', ['name' => 'crm']);
        self::assertStringContainsString('usable entries are served', $response->errors, 'with the next request');
        if (file_exists('/dev/log')) {
            return;
        }
        $redis->start();
        $this->until('the leader to notice without a request', fn (): bool => str_contains($host->logged(), 'Redis answers again'), 20.0);
    }
}
