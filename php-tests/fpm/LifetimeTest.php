<?php

declare(strict_types=1);

use SharedState\Tests\Support\Build;
use SharedState\Tests\Support\Crowd;
use SharedState\Tests\Support\TestCase;

final class LifetimeTest extends TestCase
{
    private const TTL_S = 5.0;
    private const MARGIN_S = 1.0;
    /** What a busy machine adds to a request is no renewal yet. */
    private const MINT_MS = 500;

    /** A lifetime runs from a mint to its refresh_at: 0.8 × (5 − 1) s. */
    private const LIFETIME_S = 0.8 * (self::TTL_S - self::MARGIN_S);

    public static function stores(): array
    {
        return ['one host' => [false], 'two hosts' => [true]];
    }

    /** @dataProvider stores */
    public function test_under_constant_load_one_mint_per_lifetime_and_only_the_renewing_request_waits(bool $distributed): void
    {
        $seconds = Build::full() ? 60.0 : 14.0;
        $settings = ['token.expiry_margin_s' => (int) self::MARGIN_S];
        if ($distributed) {
            $settings['redis.dsn'] = $this->redis()->dsn();
            $hosts = [$this->host('north', $settings), $this->host('south', $settings)];
        } else {
            $hosts = [$this->host('north', $settings)];
        }
        $crowd = new Crowd();
        $responses = $crowd->load(12, $seconds, 0.05, fn (int $client) => $crowd->send(
            $hosts[$client % count($hosts)]->socket(),
            $this->page('token.php'),
            ['name' => 'crm', 'ms' => self::MINT_MS, 'ttl' => self::TTL_S],
        ));

        $this->assertAllServed($responses);
        $mints = $this->mints->mints();
        $began = (int) floor($seconds / self::LIFETIME_S) + 1;
        self::assertLessThanOrEqual($began, $mints, 'lifetimes that began');
        self::assertGreaterThanOrEqual((int) floor($seconds / self::TTL_S), $mints, 'a token cannot live longer than it does');

        $firstMintEnded = $this->mints->events('end')[0]['time'];
        $waited = 0;
        foreach ($responses as $response) {
            $expires = (float) explode('.', $response->token(), 2)[1];
            self::assertLessThan($expires, $response->json()['served'], 'a token is never served when it has expired');
            if ($response->started > $firstMintEnded && $response->json()['took'] * 1000 > self::MINT_MS * 0.75) {
                $waited++;
            }
        }
        self::assertLessThanOrEqual($mints - 1, $waited, 'requests that waited after the first mint: one for each renewal');
        $this->printTimes(sprintf('%d s of load, %d mints in %d lifetimes', $seconds, $mints, $began), $responses);
    }
}
