<?php

declare(strict_types=1);

use SharedState\Tests\Support\TestCase;

final class InvalidateTest extends TestCase
{
    private const MINT = <<<'PHP'
        $n = 0;
        $mint = function () use (&$n) { $n++; return ['access_token' => "SECRET-T$n", 'expires_in' => 3600]; };
        PHP;

    public function test_without_a_token_whatever_is_there_goes(): void
    {
        $said = $this->php(self::MINT . <<<'PHP'
            return [shared_token_get('crm', $mint), shared_token_invalidate('crm'), shared_token_info('crm'), shared_token_get('crm', $mint)];
            PHP);
        self::assertSame(['SECRET-T1', true, null, 'SECRET-T2'], $said);
    }

    public function test_only_the_rejected_token_goes(): void
    {
        $said = $this->php(self::MINT . <<<'PHP'
            $old = shared_token_get('crm', $mint);
            $first = shared_token_invalidate('crm', $old);
            $new = shared_token_get('crm', $mint);
            $late = shared_token_invalidate('crm', $old);
            return [$first, $new, $late, shared_token_get('crm', $mint), $n];
            PHP);
        self::assertSame([true, 'SECRET-T2', false, 'SECRET-T2', 2], $said);
    }

    /** @group extension */
    public function test_another_process_sees_it_at_once(): void
    {
        $this->php(self::MINT . "return shared_token_get('crm', \$mint);");
        self::assertTrue($this->php("return shared_token_invalidate('crm', 'SECRET-T1');"));
        self::assertSame('fresh', $this->php("return shared_token_get('crm', fn () => 'fresh', ['ttl' => 60]);"));
    }

    public function test_invalidate_and_get_in_one_call(): void
    {
        $said = $this->php(self::MINT . <<<'PHP'
            $old = shared_token_get('crm', $mint);
            return [shared_token_get('crm', $mint, ['rejected' => $old]), shared_token_get('crm', $mint, ['rejected' => $old]), $n];
            PHP);
        self::assertSame(['SECRET-T2', 'SECRET-T2', 2], $said);
    }

    public function test_a_token_that_is_refused_again_at_once_stays_for_a_second(): void
    {
        $said = $this->php(self::MINT . <<<'PHP'
            $reject = fn (string $token) => shared_token_get('crm', $mint, ['rejected' => $token]);
            $first = [shared_token_get('crm', $mint), $reject('SECRET-T1'), $reject('SECRET-T2'), $n];
            usleep(1_200_000);
            return [...$first, $reject('SECRET-T2')];
            PHP);
        self::assertSame(['SECRET-T1', 'SECRET-T2', 'SECRET-T2', 2, 'SECRET-T3'], $said);
    }

    public function test_what_was_being_minted_when_somebody_invalidated_is_handed_out_to_nobody(): void
    {
        $said = $this->php(<<<'PHP'
            $n = 0;
            $mint = function () use (&$n) {
                if (++$n === 1) { shared_token_invalidate('crm'); }
                return ['access_token' => "T$n", 'expires_in' => 60];
            };
            return [shared_token_get('crm', $mint), shared_token_get('crm'), $n];
            PHP);
        self::assertSame(['T2', 'T2', 2], $said);
    }

    public function test_another_name_or_fingerprint_keeps_its_token(): void
    {
        $said = $this->php(<<<'PHP'
            $get = fn ($name, $options) => shared_token_get($name, fn () => "$name-" . md5(json_encode($options)), $options + ['ttl' => 60]);
            $get('crm', []); $get('crm', ['fingerprint' => 'a']); $get('erp', []);
            shared_token_invalidate('crm');
            return [shared_token_info('crm'), shared_token_get('crm', null, ['fingerprint' => 'a']), shared_token_get('erp')];
            PHP);
        self::assertNull($said[0]);
        self::assertNotNull($said[1]);
        self::assertNotNull($said[2]);
    }

    public function test_what_was_never_there_can_be_invalidated(): void
    {
        self::assertIsBool($this->php("return shared_token_invalidate('never');"));
        self::assertFalse($this->php("return shared_token_invalidate('never', 'some token');"));
    }

    public function test_all_of_a_name_or_all_there_are_go_and_the_rates_stay(): void
    {
        $said = $this->php(self::MINT . <<<'PHP'
            fx_rate('EUR', 'USD', fn () => ['base' => 'EUR', 'rates' => ['USD' => '1.25']]);
            foreach (['crm', 'erp', 'crm:eu'] as $name) {
                shared_token_get($name, $mint);
                shared_token_get($name, $mint, ['fingerprint' => ['scope' => 'write']]);
            }
            $served = fn (): int => count(array_filter(sharedstate_entries(), fn (array $entry): bool => $entry['freshness'] === 'fresh'));
            return [$served(), shared_token_invalidate_all('crm'), $served(), shared_token_info('crm:eu') !== null, shared_token_get('crm', $mint),
                shared_token_invalidate_all(), $served(), shared_token_invalidate_all(null), fx_rate('EUR', 'USD')];
            PHP);
        $dropped = static fn (int $count): array => ['dropped' => $count, 'since' => null];
        self::assertSame([7, $dropped(2), 5, true, 'SECRET-T7', $dropped(5), 1, $dropped(0), 1.25], $said);
    }

    public function test_all_of_a_name_that_cannot_be_one_is_refused(): void
    {
        $said = $this->php("return [caught(fn () => shared_token_invalidate_all('')), caught(fn () => shared_token_invalidate_all([]))];");
        self::assertSame(['ValueError', 'TypeError'], array_column($said, 'class'));
        self::assertStringContainsString('shared_token_invalidate_all(): Argument #1 ($name) must not be empty', $said[0]['message']);
    }

    public function test_info_never_shows_the_token(): void
    {
        $said = $this->php(self::MINT . "shared_token_get('crm', \$mint); return [shared_token_info('crm'), shared_token_info('cold'), sharedstate_status()];");
        self::assertIsArray($said[0]);
        self::assertNull($said[1]);
        self::assertStringNotContainsString('SECRET-T', json_encode($said));
        foreach (['version', 'minted_at', 'refresh_at', 'usable_until', 'expires_at', 'source', 'minted_by'] as $key) {
            self::assertArrayHasKey($key, $said[0]);
        }
        self::assertSame('cli', $said[0]['minted_by']['sapi']);
    }
}
