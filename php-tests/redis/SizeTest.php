<?php

declare(strict_types=1);

use SharedState\Tests\Support\TestCase;

/** What is larger than host.value_size: the same with Redis and without, and whoever hears of it hears what to raise. */
final class SizeTest extends TestCase
{
    private const SAID = <<<'PHP'
        $said = static function (Closure $call): string {
            $caught = caught($call);
            return isset($caught['class']) ? "{$caught['class']}: {$caught['message']}" : (string) strlen((string) $caught['returned']);
        };
        $get = static fn (string $name, int $bytes): string => $said(
            fn () => shared_token_get($name, fn () => ['access_token' => str_repeat('x', $bytes), 'expires_in' => 3600]));
        PHP;

    /** @return list<array{bool}> */
    public static function stores(): array
    {
        return ['with Redis' => [true], 'without' => [false]];
    }

    /** @return array<string, string> settings of a host */
    private function small(bool $redis, string $size = '4K'): array
    {
        return ['host.value_size' => $size] + ($redis ? ['redis.dsn' => $this->redis()->dsn()] : []);
    }

    /** @dataProvider stores */
    public function test_it_is_refused_and_everybody_hears_what_to_raise(bool $redis): void
    {
        [$fits, $minter, $others, $count, $stock] = $this->php(self::SAID . <<<'PHP'

            $heard = [$get('good', 3000), $get('big', 5000), $get('big', 5000)];
            return [...$heard, sharedstate_status()['values_too_large'], array_column(sharedstate_entries(), 'name')];
            PHP, $this->small($redis));
        self::assertSame('3000', $fits);
        self::assertMatchesRegularExpression('/^SharedState.InvalidValue: .*"big" has 5\d\d\d bytes with what is kept beside it, and at most 4096 fit: raise sharedstate.host.value_size/', $minter);
        self::assertMatchesRegularExpression('/^SharedState.MintFailed: .*raise sharedstate.host.value_size/', $others);
        self::assertSame(1, $count);
        self::assertContains('good', $stock);
    }

    /** @dataProvider stores */
    public function test_the_old_one_is_served_as_long_as_it_is_good(bool $redis): void
    {
        [$first, $second] = $this->php(<<<'PHP'
            $mint = static fn (int $bytes): Closure => static fn (): array => ['access_token' => str_repeat('x', $bytes), 'expires_in' => 3];
            $first = strlen(shared_token_get('crm', $mint(1000)));
            usleep(2_200_000);
            return [$first, strlen(shared_token_get('crm', $mint(5000)))];
            PHP, ['token.expiry_margin_s' => 0] + $this->small($redis));
        self::assertSame([1000, 1000], [$first, $second]);
    }

    /** @dataProvider stores */
    public function test_a_sheet_is_no_exception(bool $redis): void
    {
        $said = $this->php(self::SAID . <<<'PHP'

            $rates = [];
            for ($i = 0; $i < 600; $i++) {
                $rates['X' . chr(65 + intdiv($i, 26)) . chr(65 + $i % 26)] = '1.234567';
            }
            $fetch = static fn (): array => ['base' => 'EUR', 'timestamp' => time(), 'rates' => ['USD' => '1.1'] + $rates];
            return $said(fn () => fx_rate('EUR', 'USD', $fetch));
            PHP, $this->small($redis));
        self::assertStringContainsString('raise sharedstate.host.value_size', $said);
    }

    public function test_what_a_host_with_more_room_has_published_is_read_from_redis(): void
    {
        $settings = $this->small(true, '16K');
        $code = self::SAID . ' return [$get("big", 5000), sharedstate_status()["values_too_large"], sharedstate_status()["token_mint_count"]];';
        self::assertSame(['5000', 0, 1], $this->php($code, $settings));
        $other = "$this->folder/other";
        mkdir($other);
        self::assertSame(['5000', 1, 0], $this->php($code, ['host.dir' => $other, 'host.value_size' => '4K'] + $settings));
    }
}
