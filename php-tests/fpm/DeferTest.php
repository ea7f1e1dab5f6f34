<?php

declare(strict_types=1);

use SharedState\Tests\Support\Crowd;
use SharedState\Tests\Support\Fpm;
use SharedState\Tests\Support\Nginx;
use SharedState\Tests\Support\TestCase;

/** Renewal after the response: the visitor does not wait for it, and neither does the page after this one. */
final class DeferTest extends TestCase
{
    /** Far above what a page takes on a busy machine, and the bound is half of it. */
    private const MINT_MS = 3000;
    private const SOON_S = self::MINT_MS / 2000;

    private Fpm $host;
    private Nginx $nginx;
    private string $old;

    /** A token that is due, and the pages that will notice. */
    private function due(string $page = 'defer.php', array $more = []): void
    {
        mkdir("$this->folder/sessions");
        $this->host = $this->host('north', [], ['pm.max_children' => 4, 'php_admin_value[session.save_path]' => "$this->folder/sessions"]);
        $this->nginx = new Nginx($this->folder, $this->host, dirname($this->page('defer.php')));
        $this->old = json_decode($this->nginx->get($page, ['name' => 'crm', 'ms' => 0] + $more)[0], true)['token'];
        usleep(700_000);
    }

    /** @return array{string, float} */
    private function click(array $more = []): array
    {
        return $this->nginx->get('defer.php', ['name' => 'crm', 'ms' => self::MINT_MS] + $more);
    }

    private function assertRenewed(): void
    {
        $this->until('the renewal', fn (): bool => count($this->mints->events('end', 'crm')) === 2);
        self::assertSame(2, $this->mints->mints('crm'));
        $this->until('the new token', fn (): bool => json_decode($this->click()[0], true)['token'] !== $this->old);
    }

    public function test_the_response_does_not_wait_for_the_renewal(): void
    {
        $this->due();
        [$body, $took] = $this->click();
        self::assertSame($this->old, json_decode($body, true)['token']);
        self::assertLessThan(self::SOON_S, $took);
        $this->until('the renewal began', fn (): bool => $this->mints->mints('crm') === 2, self::SOON_S);
        fprintf(STDERR, "\n    a mint of %d ms after a response of %.0f ms\n", self::MINT_MS, $took * 1000);
        $this->assertRenewed();
    }

    public function test_the_next_click_of_a_session_is_not_kept_waiting(): void
    {
        $this->due();
        $this->click(['session' => 'visitor1']);
        $this->until('the renewal began', fn (): bool => $this->mints->mints('crm') === 2, self::SOON_S);
        [$body, $took] = $this->click(['session' => 'visitor1']);
        self::assertSame($this->old, json_decode($body, true)['token']);
        self::assertLessThan(self::SOON_S, $took);
        self::assertCount(1, $this->mints->events('end', 'crm'), 'the mint was still under way');
        $this->assertRenewed();
    }

    public static function endings(): array
    {
        return ['a page that ends well' => [null], 'an uncaught exception' => ['exception'], 'a fatal error' => ['fatal']];
    }

    /** @dataProvider endings */
    public function test_a_late_error_page_is_part_of_the_response(?string $end): void
    {
        $this->due();
        [$body, $took] = $this->click(['late' => 1] + ($end === null ? [] : ['end' => $end]));
        self::assertStringContainsString($this->old, $body);
        self::assertStringEndsWith(' late page', $body);
        self::assertLessThan(self::SOON_S, $took);
        $this->until('the renewal', fn (): bool => count($this->mints->events('end', 'crm')) === 2);
    }

    public static function failures(): array
    {
        return ['an exception' => ['exception', 'the issuer is down'], 'an error' => ['error', 'failed, the old value is served']];
    }

    /** @dataProvider failures */
    public function test_a_renewal_that_fails_leaves_the_page_alone_and_is_logged(string $mint, string $logged): void
    {
        $this->due();
        [$body, $took] = $this->click(['mint' => $mint]);
        self::assertSame($this->old, json_decode($body, true)['token']);
        self::assertLessThan(self::SOON_S, $took);
        $this->until('the log', fn (): bool => str_contains($this->host->logged(), $logged));
        self::assertStringNotContainsString('Fatal', $this->host->logged());
        self::assertStringNotContainsString($this->old, $this->host->logged());
    }

    /** PHP would have reported it after the page; who closes the session for it must not keep it. */
    public function test_a_session_that_cannot_be_written_is_logged_and_the_renewal_goes_on(): void
    {
        $this->due();
        [$body] = $this->click(['session' => 'visitor1', 'store' => 'throws']);
        self::assertSame($this->old, json_decode($body, true)['token']);
        $this->assertRenewed();
        $sentence = 'session_write_close() before a renewal threw LogicException: the session store is down';
        $this->until('the log', fn (): bool => str_contains($this->host->logged(), $sentence));
    }

    public static function forms(): array
    {
        return ['a private method' => ['private'], 'self::' => ['self'], 'an invokable object' => ['invokable']];
    }

    /** @dataProvider forms */
    public function test_what_only_its_own_class_may_call_is_called_after_the_response(string $form): void
    {
        $this->due('scoped.php', ['form' => $form]);
        [$body, $took] = $this->nginx->get('scoped.php', ['name' => 'crm', 'ms' => self::MINT_MS, 'form' => $form]);
        self::assertSame($this->old, json_decode($body, true)['token'] ?? null, $body);
        self::assertLessThan(self::SOON_S, $took);
        $this->assertRenewed();
        self::assertSame(0, $this->statusOf($this->host)['mint_failures'], 'nobody has to back off');
    }

    public function test_of_many_pages_that_notice_one_renews(): void
    {
        $this->due();
        $crowd = new Crowd();
        for ($i = 0; $i < 12; $i++) {
            $crowd->send($this->host->socket(), $this->page('defer.php'), ['name' => 'crm', 'ms' => self::MINT_MS]);
        }
        foreach ($crowd->finish() as $response) {
            self::assertSame($this->old, $response->token());
            self::assertLessThan(self::SOON_S, $response->elapsed);
        }
        $this->assertRenewed();
    }

    public function test_what_is_missing_is_minted_at_once(): void
    {
        $host = $this->host('north');
        $response = $this->get($host, 'defer.php', ['name' => 'crm', 'ms' => 50]);
        self::assertNotNull($response->token());
        self::assertGreaterThan(0.05, $response->elapsed);
    }

    public function test_a_script_without_a_response_renews_at_once(): void
    {
        $tokens = $this->php(<<<'PHP'
            $mint = static fn (): array => mint('crm', 0, 60.0);
            $options = ['defer' => true, 'refresh_ratio' => 0.01];
            $first = shared_token_get('crm', $mint, $options);
            usleep(700_000);
            return [$first, shared_token_get('crm', $mint, $options)];
            PHP);
        self::assertNotSame($tokens[0], $tokens[1]);
    }
}
