<?php

declare(strict_types=1);

use SharedState\Tests\Support\Crowd;
use SharedState\Tests\Support\Fpm;
use SharedState\Tests\Support\TestCase;

/** Counts are of the host: whichever worker made a hit, and whichever is asked. */
final class CountsTest extends TestCase
{
    private const READS = 40;

    public function test_counts_over_all_workers_are_the_calls_that_were_made(): void
    {
        $host = $this->host('north', [], ['pm.max_children' => 4]);
        $this->tokenOf($host, 'crm:1');
        $crowd = new Crowd();
        for ($i = 0; $i < 100; $i++) {
            $crowd->send($host->socket(), $this->page('hits.php'), ['name' => 'crm:1', 'times' => self::READS]);
        }
        $responses = $crowd->finish();
        $this->assertAllServed($responses);
        self::assertGreaterThan(1, count(array_unique(array_map(static fn ($response) => $response->pid(), $responses))), 'more than one worker');
        $lines = $this->metrics($host);
        self::assertSame(100, $lines['sharedstate_token_cache_hits_total{family="crm",tier="table"}'], 'the first of each request');
        self::assertSame(100 * (self::READS - 1), $lines['sharedstate_token_cache_hits_total{family="crm",tier="memo"}']);
        self::assertSame(1, $lines['sharedstate_token_mint_count_total{family="crm",reason="cold"}']);
        self::assertSame(100 * self::READS, $this->statusOf($host)['token_cache_hits']);
    }

    public function test_a_killed_worker_loses_the_hits_of_its_own_request_and_nothing_else(): void
    {
        $host = $this->host('north', [], ['pm.max_children' => 3]);
        $this->tokenOf($host, 'crm');
        $read = fn () => $this->get($host, 'hits.php', ['name' => 'crm', 'times' => self::READS]);
        for ($i = 0; $i < 5; $i++) {
            $read();
        }
        // It reads three times and dies.
        $crowd = new Crowd();
        $crowd->send($host->socket(), $this->page('killed.php'), ['name' => 'crm', 'times' => 3]);
        $dead = array_values($crowd->finish())[0];
        self::assertSame(0, $dead->status, $dead->describe());
        for ($i = 0; $i < 5; $i++) {
            $read();
        }
        $hits = array_filter($this->metrics($host), static fn (string $series) => str_starts_with($series, 'sharedstate_token_cache_hits_total{family="crm"'), ARRAY_FILTER_USE_KEY);
        $counted = array_sum($hits) - 10 * self::READS;
        self::assertGreaterThanOrEqual(0, $counted, 'none of the others is lost');
        self::assertLessThan(3, $counted, 'not all of its own were told');
    }

    public function test_with_the_counts_file_gone_the_next_second_counts_in_a_new_one(): void
    {
        $host = $this->host('north', [], ['pm.max_children' => 2]);
        $this->tokenOf($host, 'crm');
        [$file] = glob("$this->folder/host-north/*/tally-1");
        unlink($file);
        $this->until('a new file', function () use ($host, $file): bool {
            $this->tokenOf($host, 'crm');
            return file_exists($file);
        });
        self::assertSame(0600, fileperms($file) & 0777);
        self::assertSame(1, $this->metrics($host)['sharedstate_host_counts']);
    }

    /** @return array<string, int|float> */
    private function metrics(Fpm $host): array
    {
        $text = $this->get($host, 'metrics.php', [])->json()['metrics'];
        preg_match_all('/^([^#\s]\S*(?:\{.*\})?) (\S+)$/m', $text, $found);
        return array_combine($found[1], array_map(static fn (string $number) => $number + 0, $found[2]));
    }
}
