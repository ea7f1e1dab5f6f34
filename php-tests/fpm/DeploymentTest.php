<?php

declare(strict_types=1);

use SharedState\Tests\Support\Build;
use SharedState\Tests\Support\Fpm;
use SharedState\Tests\Support\RedisServer;
use SharedState\Tests\Support\TestCase;

/**
 * While a new version is rolled out, both share one Redis, and for a moment one host.
 *
 * @group deployment
 */
final class DeploymentTest extends TestCase
{
    private RedisServer $redis;

    protected function setUp(): void
    {
        if (Build::previous() === null) {
            self::markTestSkipped('there is no earlier build to deploy from');
        }
        parent::setUp();
        $this->redis = $this->redis();
    }

    public function test_old_and_new_hosts_serve_each_others_tokens(): void
    {
        [$old, $new] = [$this->old('north'), $this->new('south')];
        foreach ([[$old, $new], [$new, $old]] as $round => [$first, $second]) {
            $token = $this->tokenOf($first, "crm:$round");
            self::assertSame($token, $this->tokenOf($second, "crm:$round"));
        }
        self::assertSame(2, $this->mints->mints());
    }

    public function test_a_rejection_on_one_reaches_the_other(): void
    {
        [$old, $new] = [$this->old('north'), $this->new('south')];
        foreach ([[$old, $new], [$new, $old]] as $round => [$rejecting, $other]) {
            $name = "crm:$round";
            $rejected = $this->tokenOf($rejecting, $name);
            self::assertSame($rejected, $this->tokenOf($other, $name));
            $fresh = $this->tokenOf($rejecting, $name, ['rejected' => $rejected]);
            self::assertNotSame($rejected, $fresh);
            $this->until('the other version heard of it', fn () => $this->tokenOf($other, $name) === $fresh);
        }
        self::assertSame(4, $this->mints->mints());
    }

    public function test_a_cold_burst_on_old_and_new_hosts_mints_once(): void
    {
        [$old, $new] = [$this->old('north'), $this->new('south')];
        $crowd = new \SharedState\Tests\Support\Crowd();
        for ($i = 0; $i < 40; $i++) {
            $crowd->send(($i % 2 ? $old : $new)->socket(), $this->page('token.php'), ['name' => 'crm']);
        }
        $responses = $crowd->finish();
        $this->assertAllServed($responses);
        $this->assertOneToken($responses);
        self::assertSame(1, $this->mints->mints());
    }

    /** The old workers still run when the new ones start. */
    public function test_old_and_new_workers_of_one_host_share_the_token(): void
    {
        $old = $this->old('north');
        $token = $this->tokenOf($old, 'crm');
        $new = new Fpm($this->folder, 'north-new', ['www' => $this->pool('north', $this->settings())]);
        self::assertSame($token, $this->tokenOf($new, 'crm'));
        self::assertSame($token, $this->tokenOf($old, 'crm'));
        $old->stop();
        self::assertSame($token, $this->tokenOf($new, 'crm'));
        self::assertSame(1, $this->mints->mints());
    }

    private function old(string $name): Fpm
    {
        return $this->host($name, $this->settings(), extension: Build::previous());
    }

    private function new(string $name): Fpm
    {
        return $this->host($name, $this->settings());
    }

    /** @return array<string, string> */
    private function settings(): array
    {
        return ['redis.dsn' => $this->redis->dsn()];
    }
}
