<?php

declare(strict_types=1);

use SharedState\Tests\Support\Crowd;
use SharedState\Tests\Support\TestCase;

/** The folder of the table goes away under load: systemd's RemoveIPC does it, and so does a tidy colleague. */
final class TableLostTest extends TestCase
{
    public static function stores(): array
    {
        return ['with Redis nobody mints again' => [true, 1], 'without it one mint replaces what was lost' => [false, 2]];
    }

    /** @dataProvider stores */
    public function test_rm_rf_under_load_costs_no_request(bool $distributed, int $mints): void
    {
        $settings = $distributed ? ['redis.dsn' => $this->redis()->dsn()] : [];
        $host = $this->host('north', $settings, ['pm.max_children' => 8]);
        $removed = false;
        $crowd = new Crowd();
        $responses = $crowd->load(
            8,
            4.0,
            0.01,
            fn () => $crowd->send($host->socket(), $this->page('token.php'), ['name' => 'crm', 'ms' => 100]),
            function (float $elapsed) use (&$removed): void {
                if (!$removed && $elapsed > 1.0) {
                    exec('rm -rf ' . escapeshellarg($this->folder) . '/host-north/*');
                    $removed = true;
                }
            },
        );
        $this->assertAllServed($responses);
        self::assertLessThanOrEqual($mints, $this->mints->mints());
        // A new worker and the old ones agree again on one table, and so on one token.
        usleep(1_500_000);
        $after = [];
        for ($i = 0; $i < 30; $i++) {
            $after[] = $this->get($host, 'token.php', ['name' => 'crm', 'ms' => 100]);
        }
        $this->assertAllServed($after);
        $this->assertOneToken($after);
        self::assertLessThanOrEqual($mints, $this->mints->mints());
        self::assertStringNotContainsString('SIGBUS', $host->logged());
    }

    public function test_without_a_table_and_without_redis_every_call_says_what_to_do(): void
    {
        $host = $this->host('north', ['host.dir' => "$this->folder/does/not/exist"], ['pm.max_children' => 1]);
        for ($i = 0; $i < 2; $i++) {
            $response = $this->get($host, 'token.php', ['name' => 'crm']);
            self::assertSame('SharedState\\ConfigError', $response->error(), $response->describe());
            self::assertStringContainsString("$this->folder/does/not/exist", $response->json()['message']);
        }
        self::assertSame(0, $this->mints->mints(), 'a silent cache per process is incident one');
    }
}
