<?php

declare(strict_types=1);

use SharedState\Tests\Support\TestCase;

/** What this host has, name by name. */
final class EntriesTest extends TestCase
{
    private const MINT = '$mint = static fn (array $for) => ["access_token" => "SECRET.TOKEN." . bin2hex($for["name"]), "expires_in" => 3600];'
        . '$of = static fn (string $name) => array_values(array_filter(sharedstate_entries(), static fn ($entry) => $entry["name"] === $name));';

    public function test_a_token_is_listed_with_everything_but_its_value(): void
    {
        [$before, $entry, $info, $after] = $this->php(self::MINT . <<<'PHP'
            $before = time();
            shared_token_get('crm:acme', $mint);
            return [$before, $of('crm:acme')[0], shared_token_info('crm:acme'), time()];
            PHP);
        self::assertStringNotContainsString('SECRET', json_encode($entry));
        foreach (['version', 'freshness', 'minted_at', 'refresh_at', 'usable_until', 'expires_at', 'source', 'minted_by', 'unsynced'] as $field) {
            // Asked one after the other, an instant may be on either side of a full second.
            str_ends_with($field, '_at') || $field === 'usable_until'
                ? self::assertEqualsWithDelta($info[$field], $entry[$field], 1, $field)
                : self::assertSame($info[$field], $entry[$field], $field);
        }
        self::assertSame(['token', 'crm', null, 'fresh'], [$entry['kind'], $entry['family'], $entry['fingerprint'], $entry['freshness']]);
        self::assertSame([true, null, null, null], [$entry['confirmed'], $entry['flight'], $entry['backoff'], $entry['rates']]);
        self::assertGreaterThanOrEqual($before, $entry['minted_at'] + 1);
        self::assertLessThanOrEqual($after - $before + 1, $entry['age']);
    }

    public function test_two_fingerprints_of_one_name_are_two_entries_that_can_be_told_apart(): void
    {
        $fingerprints = $this->php(self::MINT . <<<'PHP'
            foreach ([[], ['fingerprint' => 'read'], ['fingerprint' => 'write']] as $options) { shared_token_get('crm', $mint, $options); }
            return array_column($of('crm'), 'fingerprint');
            PHP);
        self::assertCount(3, array_unique($fingerprints));
        self::assertContains(null, $fingerprints);
        self::assertStringNotContainsString('read', implode($fingerprints));
    }

    public function test_a_name_is_the_bytes_it_was_given_as(): void
    {
        self::assertSame(['636166e9'], $this->php(self::MINT . <<<'PHP'
            shared_token_get("caf\xe9", $mint);
            return array_map(bin2hex(...), array_column(sharedstate_entries(), 'name'));
            PHP));
    }

    public function test_who_mints_is_listed_while_it_does_and_who_failed_until_it_may_again(): void
    {
        [$pid, $during, $failed] = $this->php(self::MINT . <<<'PHP'
            $during = null;
            shared_token_get('crm', static function () use (&$during, $of) {
                $during = $of('crm')[0];
                return ['access_token' => 'x', 'expires_in' => 60];
            });
            try { shared_token_get('bad', static fn () => throw new RuntimeException('nothing today')); } catch (SharedState\MintFailed) {}
            return [getmypid(), $during, $of('bad')[0]];
            PHP);
        self::assertSame([0, 'gone', null, $pid], [$during['version'], $during['freshness'], $during['minted_at'], $during['flight']['pid']]);
        self::assertGreaterThanOrEqual($during['flight']['since'] + 3, $during['flight']['until'], 'the length of a lease');
        self::assertSame([1, 'RuntimeException: nothing today', null], [$failed['backoff']['failures'], $failed['backoff']['reason'], $failed['flight']]);
        self::assertEqualsWithDelta(time(), $failed['backoff']['until'], 3);
    }

    public function test_a_sheet_is_listed_with_its_base_and_age_and_without_its_rates(): void
    {
        $entry = $this->php(self::MINT . <<<'PHP'
            fx_rate('EUR', 'USD', static fn () => ['base' => 'EUR', 'timestamp' => 1700000000 + (time() - 1700000000), 'rates' => ['USD' => '1.2345', 'CHF' => '0.9']]);
            return $of('default')[0];
            PHP);
        self::assertSame('rates', $entry['kind']);
        $sheet = $entry['rates'];
        self::assertSame(['EUR', 'callable', 3, true, false], [$sheet['base'], $sheet['source'], $sheet['currencies'], $sheet['unconfirmed'], $sheet['held_back']]);
        self::assertEqualsWithDelta(time(), $sheet['as_of'], 5);
        self::assertStringNotContainsString('1.2345', json_encode($entry));
    }

    public function test_a_dropped_token_is_listed_as_gone(): void
    {
        self::assertSame([['gone', 0]], $this->php(self::MINT . <<<'PHP'
            shared_token_get('crm', $mint);
            shared_token_invalidate('crm');
            return array_map(static fn ($entry) => [$entry['freshness'], $entry['version']], $of('crm'));
            PHP));
    }

    /**
     * A list that counted as use would keep what nobody needs.
     *
     * @group extension
     */
    public function test_being_listed_keeps_nothing_from_eviction(): void
    {
        $names = $this->php(self::MINT . <<<'PHP'
            shared_token_get('oldest', $mint);
            sleep(1);
            for ($n = 0; $n < 63; $n++) { shared_token_get("name$n", $mint); }
            sleep(1);
            sharedstate_entries();
            sharedstate_metrics();
            shared_token_get('one more', $mint);
            return array_column(sharedstate_entries(), 'name');
            PHP, ['host.slots' => 64]);
        self::assertCount(64, $names);
        self::assertNotContains('oldest', $names);
    }

    public function test_a_limit_is_kept_and_must_make_sense(): void
    {
        [$some, $sentence] = $this->php(self::MINT . <<<'PHP'
            for ($n = 0; $n < 20; $n++) { shared_token_get("name$n", $mint); }
            try { sharedstate_entries(0); } catch (ValueError $error) { $sentence = $error->getMessage(); }
            return [count(sharedstate_entries(5)), $sentence];
            PHP);
        self::assertSame(5, $some);
        self::assertSame('sharedstate_entries(): Argument #1 ($limit) must be a number of entries, 1 or more; 0 given', $sentence);
    }

    /**
     * Whoever looks at a host must not become its load.
     *
     * @group extension
     */
    public function test_neither_the_list_nor_the_metrics_send_anything_to_redis(): void
    {
        $redis = $this->redis();
        [$names, $sent, $seconds] = $this->php(self::MINT . <<<'PHP'
            shared_token_get('crm', $mint);
            $start = microtime(true);
            $before = sharedstate_status()['redis_commands_of_this_process'];
            for ($i = 0; $i < 50; $i++) { $names = array_column(sharedstate_entries(), 'name'); sharedstate_metrics(); }
            return [$names, sharedstate_status()['redis_commands_of_this_process'] - $before, microtime(true) - $start];
            PHP, ['redis.dsn' => $redis->dsn()]);
        self::assertSame(['crm'], $names);
        self::assertLessThan(10 * max(1, $seconds), $sent, 'the leader goes on following');
    }
}
