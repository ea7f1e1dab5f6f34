<?php

declare(strict_types=1);

use SharedState\Tests\Support\Browser;
use SharedState\Tests\Support\Cli;
use SharedState\Tests\Support\Crowd;
use SharedState\Tests\Support\Fpm;
use SharedState\Tests\Support\Nginx;
use SharedState\Tests\Support\RatesServer;
use SharedState\Tests\Support\RedisServer;
use SharedState\Tests\Support\Response;
use SharedState\Tests\Support\TestCase;

/** build/status/sharedstate.php behind a web server: who may look, what is said, and what is not. */
final class StatusPageTest extends TestCase
{
    private const PAGE = 'sharedstate.php';
    private const OPEN = ['SHAREDSTATE_STATUS_ALLOW' => '127.0.0.1'];

    /** @param array<string, string> $parameters of the web server */
    private function site(Fpm $host, array $parameters = self::OPEN): Nginx
    {
        return new Nginx($this->folder, $host, dirname(__DIR__, 2) . '/build/status', $parameters);
    }

    /** @return array{int, string, string} status, headers and body */
    private function ask(Nginx $site, string $query = '', array $headers = [], string $method = 'GET'): array
    {
        $context = stream_context_create(['http' => ['method' => $method, 'header' => $headers, 'ignore_errors' => true, 'timeout' => 10.0]]);
        $body = (string) file_get_contents($site->address(self::PAGE) . "?$query", false, $context);
        return [(int) explode(' ', $http_response_header[0])[1], implode("\n", $http_response_header), $body];
    }

    private function json(Nginx $site, string $query = 'json', array $headers = []): array
    {
        return json_decode($this->ask($site, $query, $headers)[2], true, 512, JSON_THROW_ON_ERROR);
    }

    private static function login(string $user, string $password): array
    {
        return ['Authorization: Basic ' . base64_encode("$user:$password")];
    }

    /** The page as a FastCGI request of an address of our choice. */
    private function from(Fpm $host, array $parameters): Response
    {
        $crowd = new Crowd();
        $crowd->send($host->socket(), dirname(__DIR__, 2) . '/build/status/' . self::PAGE, ['json' => 1], $parameters);
        return array_values($crowd->finish())[0];
    }

    // Who may look.

    public function test_without_a_setting_the_page_is_closed_and_says_what_to_set(): void
    {
        $site = $this->site($this->host('north'), []);
        $tricks = ['SHAREDSTATE_STATUS_ALLOW: 127.0.0.1', 'SHAREDSTATE-STATUS-ALLOW: 127.0.0.1', 'SHAREDSTATE_STATUS_PASSWORD: x', ...self::login('x', 'x')];
        foreach (['', 'html', 'json', 'openmetrics', 'SHAREDSTATE_STATUS_ALLOW=127.0.0.1', 'json&SHAREDSTATE_STATUS_PASSWORD=x'] as $query) {
            foreach ([[], $tricks] as $headers) {
                [$status, , $body] = $this->ask($site, $query, $headers);
                self::assertSame(403, $status, $query);
                self::assertStringContainsString('SHAREDSTATE_STATUS_PASSWORD_FILE', $body);
                self::assertStringNotContainsString('token_cache_hits', $body);
                self::assertStringNotContainsString($this->folder, $body);
            }
        }
        self::assertSame(403, $this->json($site)['error']['status']);
    }

    public function test_the_password_opens_it_and_nothing_else_does(): void
    {
        $site = $this->site($this->host('north'), ['SHAREDSTATE_STATUS_PASSWORD' => 'correct horse']);
        foreach ([[], self::login('admin', 'wrong'), self::login('admin', ''), self::login('correct horse', ''), self::login('', 'correct hors'), self::login('', 'correct horse '), ['Authorization: Bearer correct horse']] as $headers) {
            foreach (['html', 'json', 'openmetrics'] as $form) {
                [$status, $said, $body] = $this->ask($site, $form, $headers);
                self::assertSame(401, $status, implode($headers));
                self::assertStringContainsString('WWW-Authenticate: Basic realm="sharedstate"', $said);
                self::assertStringNotContainsString('correct horse', $body);
                self::assertStringNotContainsString('token_cache_hits', $body);
            }
        }
        self::assertSame(200, $this->ask($site, 'json', self::login('anybody', 'correct horse'))[0]);
        self::assertSame(200, $this->ask($site, 'html', self::login('', 'correct horse'))[0]);
    }

    public function test_a_password_file_may_hold_a_hash_and_one_that_cannot_be_read_opens_nothing(): void
    {
        $host = $this->host('north');
        file_put_contents("$this->folder/hashed", password_hash('correct horse', PASSWORD_BCRYPT, ['cost' => 4]) . "\n");
        file_put_contents("$this->folder/plain", "correct horse\n");
        file_put_contents("$this->folder/empty", "\n");
        $with = fn (string $file, string $password): int => $this->from($host, ['SHAREDSTATE_STATUS_PASSWORD_FILE' => "$this->folder/$file",
            'HTTP_AUTHORIZATION' => 'Basic ' . base64_encode("x:$password")])->status;
        foreach (['hashed', 'plain'] as $file) {
            self::assertSame([200, 401, 401], [$with($file, 'correct horse'), $with($file, 'wrong'), $with($file, '')], $file);
        }
        // What stands in the file does not open it: a hash that leaked is no password.
        self::assertSame(401, $with('hashed', trim(file_get_contents("$this->folder/hashed"))));
        self::assertSame([403, 403], [$with('empty', ''), $with('missing', '')]);
    }

    /** @dataProvider addresses */
    public function test_the_allow_list_is_compared_with_the_address_of_the_connection(string $list, string $address, bool $allowed): void
    {
        $response = $this->from($this->host('north'), ['SHAREDSTATE_STATUS_ALLOW' => $list, 'REMOTE_ADDR' => $address,
            'HTTP_X_FORWARDED_FOR' => '127.0.0.1', 'HTTP_X_REAL_IP' => '127.0.0.1', 'HTTP_FORWARDED' => 'for=127.0.0.1', 'HTTP_CLIENT_IP' => '127.0.0.1']);
        self::assertSame($allowed ? 200 : 403, $response->status, $response->describe());
    }

    public static function addresses(): array
    {
        return [
            'an address' => ['127.0.0.1', '127.0.0.1', true],
            'a spoofed one' => ['127.0.0.1', '203.0.113.9', false],
            'in a network' => ['127.0.0.1, 10.0.0.0/8', '10.255.3.4', true],
            'beside a network' => ['10.0.0.0/8', '11.0.0.1', false],
            'in a network that ends within a byte' => ['192.168.16.0/20', '192.168.31.255', true],
            'beside it' => ['192.168.16.0/20', '192.168.32.0', false],
            'the whole of IPv4' => ['0.0.0.0/0', '8.8.8.8', true],
            'which is not the whole of IPv6' => ['0.0.0.0/0', '2001:db8::1', false],
            'IPv6' => ['::1', '::1', true],
            'IPv6 written otherwise' => ['2001:db8:0::/48', '2001:0db8:0000:ffff::1', true],
            'beside it in IPv6' => ['2001:db8:0::/48', '2001:db8:1::1', false],
            'IPv6 that ends within a byte' => ['fe80::/10', 'febf::1', true],
            'IPv4 in the form of IPv6' => ['10.0.0.0/8', '::ffff:10.1.1.1', true],
            'no prefix of the text' => ['10.0.0.1', '10.0.0.10', false],
            'a mistake allows nobody' => ['10.0.0.0/33 localhost 10.0.0.0/-1 10.0.0.0/', '10.0.0.1', false],
            'and leaves the others' => ['10.0.0.0/33 10.0.0.1', '10.0.0.1', true],
            'no address' => ['0.0.0.0/0 ::/0', '', false],
        ];
    }

    public function test_where_both_are_set_both_are_needed(): void
    {
        $host = $this->host('north');
        $set = ['SHAREDSTATE_STATUS_ALLOW' => '10.0.0.1', 'SHAREDSTATE_STATUS_PASSWORD' => 'correct horse'];
        $login = ['HTTP_AUTHORIZATION' => 'Basic ' . base64_encode('x:correct horse')];
        self::assertSame(200, $this->from($host, $set + $login + ['REMOTE_ADDR' => '10.0.0.1'])->status);
        self::assertSame(401, $this->from($host, $set + ['REMOTE_ADDR' => '10.0.0.1'])->status);
        self::assertSame(403, $this->from($host, $set + $login + ['REMOTE_ADDR' => '10.0.0.2'])->status);
    }

    public function test_a_setting_of_the_pool_counts_like_one_of_the_web_server(): void
    {
        $site = $this->site($this->host('north', [], ['env[SHAREDSTATE_STATUS_PASSWORD]' => 'of-the-pool']), []);
        self::assertSame(401, $this->ask($site)[0]);
        self::assertSame(200, $this->ask($site, '', self::login('x', 'of-the-pool'))[0]);
    }

    public function test_it_only_shows_and_is_kept_out_of_caches_and_frames(): void
    {
        $site = $this->site($this->host('north'));
        foreach (['POST', 'PUT', 'DELETE'] as $method) {
            self::assertSame(405, $this->ask($site, 'json', [], $method)[0]);
        }
        $nonces = [];
        foreach ([1, 2] as $_) {
            [$status, $headers, $body] = $this->ask($site);
            self::assertSame(200, $status);
            foreach (["default-src 'none'", "frame-ancestors 'none'", 'X-Frame-Options: DENY', 'Cache-Control: no-store', 'X-Content-Type-Options: nosniff', 'Referrer-Policy: no-referrer'] as $needed) {
                self::assertStringContainsString($needed, $headers);
            }
            self::assertSame(1, preg_match("/script-src 'nonce-([^']{20,})'/", $headers, $nonce));
            self::assertStringNotContainsString('unsafe', $headers);
            self::assertStringContainsString("<script nonce=\"$nonce[1]\">", $body);
            // Nothing is loaded from anywhere: what looks like an address is a namespace.
            self::assertSame(0, preg_match('#(src|href)=["\']?(https?:)?//#', $body));
            $nonces[] = $nonce[1];
        }
        self::assertNotSame($nonces[0], $nonces[1]);
    }

    // What is said.

    public function test_the_json_has_what_happens_on_the_host(): void
    {
        $redis = $this->redis();
        $host = $this->host('north', ['redis.dsn' => $redis->dsn()]);
        $site = $this->site($host);
        $this->tokenOf($host, 'crm:a');
        $this->tokenOf($host, 'crm:a');
        $data = $this->json($site);
        self::assertSame(['at', 'host', 'php', 'verdict', 'findings', 'status', 'store', 'families', 'provider_calls', 'plan', 'filter', 'entries_total', 'entries_found', 'entries', 'facts'], array_keys($data));
        self::assertSame(1, $data['status']['token_mint_count']);
        self::assertSame(1, $data['status']['token_cache_hits']);
        self::assertSame(['distributed' => true, 'up' => true], array_intersect_key($data['store'], ['distributed' => 0, 'up' => 0]));
        $entries = array_column($data['entries'], null, 'name');
        self::assertSame(['token', 'fresh', true], [$entries['crm:a']['kind'], $entries['crm:a']['freshness'], $entries['crm:a']['usable']]);
        self::assertEqualsWithDelta($data['at'] + 3600, $entries['crm:a']['expires_at'], 5);
        self::assertSame(['crm' => 1], array_filter(array_map(static fn (array $family): int => $family['mints']['cold'], array_column($data['families'], null, 'family'))));
        self::assertSame('well', $data['verdict']['code'], json_encode($data['verdict']));
    }

    public function test_a_mint_that_fails_is_the_verdict_and_names_the_token(): void
    {
        $host = $this->host('north', ['token.failure_backoff_ms' => 5000]);
        $this->get($host, 'token.php', ['name' => 'erp', 'ms' => 0, 'ttl' => 0]);
        $verdict = $this->json($this->site($host))['verdict'];
        self::assertSame(['bad', 'mint_fails', 'No token for erp'], [$verdict['level'], $verdict['code'], $verdict['title']]);
        self::assertStringContainsString('expires_in', $verdict['why']);
    }

    public function test_openmetrics_are_served_as_such(): void
    {
        [$status, $headers, $body] = $this->ask($this->site($this->host('north')), 'openmetrics');
        self::assertSame(200, $status);
        self::assertStringContainsString('Content-Type: application/openmetrics-text; version=1.0.0; charset=utf-8', $headers);
        self::assertStringEndsWith("# EOF\n", $body);
        self::assertStringContainsString('sharedstate_store_up', $body);
    }

    public function test_no_token_and_no_password_is_in_any_form_of_it(): void
    {
        $redis = $this->redis('--requirepass', 's3cret-of-redis');
        $host = $this->host('north', ['redis.dsn' => $redis->dsn(), 'redis.password' => 's3cret-of-redis']);
        $site = $this->site($host, ['SHAREDSTATE_STATUS_PASSWORD' => 's3cret-of-the-page']);
        $tokens = [$this->tokenOf($host), $this->tokenOf($host, 'erp'), $this->tokenOf($host, 'crm', ['fingerprint' => ['scope' => 's3cret-scope']])];
        $tokens[] = $this->tokenOf($host, 'erp', ['rejected' => $tokens[1]]);
        $redis->stop();
        $this->tokenOf($host, 'alone');
        foreach (['html', 'json', 'openmetrics'] as $form) {
            [$status, $headers, $body] = $this->ask($site, $form, self::login('x', 's3cret-of-the-page'));
            self::assertSame(200, $status);
            self::assertStringContainsString('erp', $body, 'it says something');
            foreach ([...$tokens, 's3cret'] as $secret) {
                self::assertStringNotContainsString($secret, $headers . $body, $form);
            }
        }
    }

    public function test_it_sends_nothing_to_redis(): void
    {
        $redis = $this->redis();
        $host = $this->host('north', ['redis.dsn' => $redis->dsn()], ['pm.max_children' => 4]);
        $site = $this->site($host);
        $this->tokenOf($host);
        // Every worker has attached, and one of them leads: it asks about eight times a second, whoever looks.
        for ($i = 0; $i < 12; $i++) {
            $this->json($site);
        }
        $sent = static fn (): int => preg_match('/total_commands_processed:(\d+)/', (string) $redis->command('INFO', 'stats'), $found) ? (int) $found[1] : 0;
        $during = function (callable $what) use ($sent): int {
            $before = $sent();
            $end = microtime(true) + 2.0;
            $what();
            usleep((int) (1e6 * max(0, $end - microtime(true))));
            return $sent() - $before;
        };
        $quiet = $during(static fn () => null);
        $watched = $during(function () use ($site): void {
            for ($i = 0; $i < 40; $i++) {
                foreach (['html', 'json', 'openmetrics'] as $form) {
                    self::assertSame(200, $this->ask($site, $form)[0]);
                }
            }
        });
        fprintf(STDERR, "\n    commands in about 2 s: %d by itself, %d with 120 looks at the page\n", $quiet, $watched);
        self::assertLessThan($quiet + 30, $watched);
    }

    public function test_a_thousand_names_are_found_by_filter_and_cost_little(): void
    {
        $host = $this->host('north');
        $site = $this->site($host);
        $this->get($host, 'many.php', ['count' => 1500]);
        $start = microtime(true);
        $data = $this->json($site);
        fprintf(STDERR, "\n    1,500 names as JSON: %.0f ms\n", 1000 * (microtime(true) - $start));
        self::assertSame([1500, 1500, 1000], [$data['entries_total'], $data['entries_found'], count($data['entries'])]);
        self::assertSame(1500, $data['plan']['tokens']);
        $data = $this->json($site, 'json&filter=:1499');
        self::assertSame(['shop-9:1499'], array_column($data['entries'], 'name'));
        self::assertLessThan(100, substr_count($this->ask($site, 'filter=:14')[2], '<tr class') - 100, 'the page begins with a hundred');
    }

    // What can be wrong.

    public function test_without_the_extension_it_says_so_in_every_form(): void
    {
        // Some other extension in its place.
        $host = new Fpm($this->folder, 'bare', ['www' => []], [], [], 'ctype');
        $site = $this->site($host);
        foreach (['html', 'json', 'openmetrics'] as $form) {
            [$status, , $body] = $this->ask($site, $form);
            self::assertSame(503, $status);
            self::assertStringContainsString('The extension is not loaded', $body);
        }
        self::assertSame(503, $this->json($site)['error']['status']);
    }

    /** What stands in for the extension knows less, and that is what the page says first. */
    public function test_the_polyfill_is_a_warning_and_what_it_does_not_know_is_left_out(): void
    {
        $page = dirname(__DIR__, 2) . '/build/status/' . self::PAGE;
        $code = 'function sharedstate_status(): array { return ["polyfill" => true, "token_cache_hits" => 3]; }'
            . ' [$_SERVER["SHAREDSTATE_STATUS_ALLOW"], $_SERVER["REMOTE_ADDR"]] = ["::1", "::1"]; $_GET = [$argv[1] => ""]; require ' . var_export($page, true) . ';';
        $html = Cli::run(['-r', $code, 'html'], [], [], 10.0, false);
        self::assertSame([0, ''], [$html->status, $html->errors]);
        self::assertStringContainsString('This is the polyfill', $html->output);
        $json = json_decode(Cli::run(['-r', $code, 'json'], [], [], 10.0, false)->output, true, 512, JSON_THROW_ON_ERROR);
        self::assertSame(['warn', 'polyfill'], [$json['verdict']['level'], $json['verdict']['code']]);
    }

    public function test_a_setting_that_makes_no_sense_is_named(): void
    {
        $site = $this->site($this->host('north', ['token.refresh_ratio' => '7']));
        foreach (['html', 'json', 'openmetrics'] as $form) {
            [$status, , $body] = $this->ask($site, $form);
            self::assertSame(503, $status);
            self::assertStringContainsString('token.refresh_ratio', $body);
        }
    }

    // In a browser.

    /** Names as an attacker, or a user of another language, would choose them. */
    private const NAMES = [
        '<script>window.pwned=1</script>', '"><img src=x onerror=window.pwned=1>', '</script><script>window.pwned=1</script>', "'-window.pwned=1-'",
        'javascript:window.pwned=1', '{{constructor.constructor("window.pwned=1")()}}', '<!--<script>', '&lt;b&gt;', "caf\xe9", "\xff\xfe\xfd", "user\u{202E}cod.exe", "zero\u{200B}width",
        'שלום', '東京', '<svg/onload=window.pwned=1>:x',
    ];

    public function test_names_are_shown_as_what_they_are_and_never_run(): void
    {
        $host = $this->host('north');
        $site = $this->site($host);
        $long = str_repeat('long-', 40);
        foreach ([...self::NAMES, $long] as $name) {
            self::assertSame(200, $this->get($host, 'token.php', ['name' => $name, 'ms' => 0])->status);
        }
        $browser = new Browser($this->folder);
        $browser->size(1280, 900);
        foreach ([true, false] as $static) {
            $browser->withoutScripts($static);
            $browser->open($site->address(self::PAGE) . ($static ? '' : '?filter=%3Cscript%3E%22%3Ewindow.pwned'));
            $browser->withoutScripts(false);
            if (!$static) {
                $browser->run('document.querySelector("#filter").value = ""; document.querySelector("#filter").form.requestSubmit()');
                $this->until('another look', static fn (): bool => $browser->run('return document.querySelectorAll("#names tbody tr").length') > 10);
            }
            self::assertTrue($browser->run('return window.pwned === undefined'));
            self::assertSame(0, $browser->run('return document.querySelectorAll("main script, main img, main b > b, #names a").length'));
            $shown = $browser->run('return [...document.querySelectorAll("#names tbody bdi")].map(name => name.textContent)');
            self::assertCount(count(self::NAMES) + 1, $shown);
            self::assertSame([], array_diff(['<script>window.pwned=1</script>', '"><img src=x onerror=window.pwned=1>', '&lt;b&gt;', 'caf\xE9', '\xFF\xFE\xFD', 'user\u{202E}cod.exe', 'zero\u{200B}width', 'שלום', '東京', $long], $shown));
            self::assertSame([], $browser->console());
        }
    }

    public function test_the_numbers_of_an_open_page_move_and_a_hidden_page_asks_nothing(): void
    {
        $host = $this->host('north', [], ['access.log' => "$this->folder/asked", 'access.format' => '"%m %r?%q"']);
        $site = $this->site($host, ['SHAREDSTATE_STATUS_PASSWORD' => 'horse']);
        $this->tokenOf($host);
        $browser = new Browser($this->folder);
        $browser->size(1280, 900);
        $browser->open($site->address(self::PAGE, 'x:horse'));
        $hits = static fn (): int => (int) strtr($browser->text('[data-counter=token_cache_hits] b'), [',' => '']);
        $before = $hits();
        $this->read($host, ['crm'], 5.0);
        // It looks every two seconds; on a busy machine the browser is late, and so are the readers.
        $this->until('the numbers move', static fn (): bool => $hits() > $before + 50);
        self::assertMatchesRegularExpression('~^\d[\d,.]*\s*/s~', str_replace("\n", ' ', $browser->text('[data-tile=hits] p')));
        $this->until('the line grows', static fn (): bool => $browser->run('return document.querySelector("[data-tile=hits] polyline").points.length') > 2);
        self::assertSame('on', $browser->run('return document.querySelector("#live").className'));
        self::assertSame([], $browser->console());

        $asked = fn (): int => substr_count((string) file_get_contents("$this->folder/asked"), '?json');
        self::assertGreaterThan(1, $asked());
        $browser->run('Object.defineProperty(document, "hidden", {value: true, configurable: true}); document.dispatchEvent(new Event("visibilitychange"))');
        usleep(300_000);
        $then = $asked();
        sleep(5);
        self::assertSame($then, $asked());
        $browser->run('delete document.hidden; document.dispatchEvent(new Event("visibilitychange"))');
        $this->until('it looks again', static fn (): bool => $asked() > $then);
    }

    public function test_a_thousand_names_can_be_filtered_sorted_and_shown(): void
    {
        $host = $this->host('north');
        $this->get($host, 'many.php', ['count' => 1200]);
        $browser = new Browser($this->folder);
        $browser->size(1280, 900);
        $browser->open($this->site($host)->address(self::PAGE));
        $names = static fn (): array => $browser->run('return [...document.querySelectorAll("#names tbody bdi")].map(name => name.textContent)');
        $type = static fn (string $text) => $browser->run('const box = document.querySelector("#filter"); box.value = arguments[0]; box.dispatchEvent(new Event("input"))', $text);
        self::assertCount(100, $names());
        $type('shop-3:000');
        self::assertSame(['shop-3:0003'], $names());
        self::assertSame('1 of 1,200', $browser->text('#count'));
        // Beyond the thousand that are sent, the server is asked.
        $type('shop-9:1199');
        $this->until('the server has looked', static fn (): bool => $names() === ['shop-9:1199']);
        $type('');
        $this->until('all are back', static fn (): bool => count($names()) === 100);
        $browser->run('document.querySelector("[data-sort=expires_at], [data-sort=usable_until]").querySelector("button").click()');
        self::assertSame('ascending', $browser->run('return document.querySelector("[data-sort=usable_until]").getAttribute("aria-sort")'));
        self::assertSame('shop-0:0000', $names()[0]);
        $browser->run('document.querySelector("#more button").click()');
        self::assertCount(1000, $names());
        self::assertSame([], $browser->console());
    }

    public function test_a_token_storm_and_rates_fetched_above_plan_are_the_verdict(): void
    {
        $redis = $this->redis();
        $provider = new RatesServer($this->folder);
        // Another host has a much shorter interval than this one, which has no source of its own.
        $other = $this->host('south', ['redis.dsn' => $redis->dsn(), 'fx.sources' => $provider->json(), 'fx.refresh_interval_s' => 1]);
        $this->get($other, 'rates.php', []);
        $host = $this->host('north', ['redis.dsn' => $redis->dsn()]);
        $this->tokenOf($host);
        $this->get($host, 'rates.php', []);
        $browser = new Browser($this->folder);
        $browser->size(1280, 900);
        $browser->open($this->site($host)->address(self::PAGE));
        self::assertSame('All well', $browser->text('#verdict h1'));
        // And somebody drops the token all the time.
        $end = microtime(true) + 25.0;
        do {
            $this->get($host, 'change.php', ['name' => 'crm']);
            usleep(300_000);
            $said = $browser->text('#verdict');
            $both = str_contains($said, 'Mints above lifetimes: crm minted') && str_contains($said, 'Rates are fetched above plan');
        } while (!$both && microtime(true) < $end);
        self::assertTrue($both, $said);
        self::assertStringContainsString('One mint should last', $said);
        self::assertSame('verdict bad', $browser->run('return document.querySelector("#verdict").className'));
        self::assertSame([], $browser->console());
    }

    /** Every state in light and in dark: readable, complete, and a picture of each; SCREENSHOTS=docs keeps them there. */
    public function test_the_page_is_readable_under_load_degraded_and_empty_in_light_and_dark(): void
    {
        $keep = getenv('SCREENSHOTS') ? dirname(__DIR__, 2) . '/' . getenv('SCREENSHOTS') : null;
        $redis = $this->redis();
        $provider = new RatesServer($this->folder);
        $settings = ['redis.dsn' => $redis->dsn(), 'fx.sources' => $provider->json(), 'fx.refresh_interval_s' => $keep === null ? 3600 : 60, 'token.failure_backoff_ms' => 3000];
        $host = $this->host('north', $settings);
        $site = $this->site($host);
        $browser = new Browser($this->folder);
        $browser->size(1240, 900);

        $browser->open($site->address(self::PAGE));
        self::assertSame('Nothing here yet', $browser->text('#verdict h1'));
        $this->portray($browser, 'empty', $keep);

        $names = ['crm', 'billing', 'erp:orders', 'erp:stock', 'shop:acme', 'shop:globex', 'shop:initech'];
        $this->get($host, 'rates.php', []);
        $this->tokenOf($host, 'crm', ['fingerprint' => ['scope' => 'write']]);
        $this->read($host, $names, $keep === null ? 5.0 : 100.0);
        $rows = static fn (): int => count($browser->run('return [...document.querySelectorAll("#names tbody tr")].map(row => row.className)'));
        $this->until('all names', static fn (): bool => $rows() === 9);
        self::assertSame('All well', $browser->text('#verdict h1'));
        $this->portray($browser, 'load', $keep);

        $redis->stop();
        $this->read($host, [...$names, 'crm:new'], $keep === null ? 5.0 : 40.0);
        $this->until('the verdict', static fn (): bool => str_starts_with($browser->text('#verdict h1'), 'Redis cannot be asked since'));
        self::assertSame('verdict warn', $browser->run('return document.querySelector("#verdict").className'));
        $this->until('the count', static fn (): bool => (int) strtr($browser->text('[data-counter=served_degraded] b'), [',' => '']) > 0);
        $this->portray($browser, 'degraded', $keep);
        self::assertSame([], $browser->console());
    }

    /** Reads those names for a while, as pages do. @param list<string> $names */
    private function read(Fpm $host, array $names, float $seconds): void
    {
        $crowd = new Crowd();
        $crowd->load(6, $seconds, 0.02, fn (int $client) => $crowd->send($host->socket(), $this->page('token.php'),
            ['name' => $names[random_int(0, count($names) - 1)], 'ms' => 150, 'ttl' => 45 + 5 * $client]));
    }

    /** In both schemes: every text stands out from its ground, nothing is wider than a phone; and two pictures. */
    private function portray(Browser $browser, string $state, ?string $folder): void
    {
        $grounds = [];
        foreach (['light' => false, 'dark' => true] as $scheme => $dark) {
            $browser->dark($dark);
            $grounds[] = $browser->run('return getComputedStyle(document.body).backgroundColor');
            self::assertSame([], $browser->run(self::FAINT), "$state, $scheme: text that is hard to read");
            $file = ($folder ?? $this->folder) . "/status-$state-$scheme.png";
            $browser->picture($file);
            if ($folder !== null) {
                Cli::command(['pngquant', '--force', '--ext', '.png', '--speed', '1', '64', '--', $file]);
            }
            self::assertSame([1240, 'image/png'], array_values(array_intersect_key(getimagesize($file), [0 => 0, 'mime' => 0])));
        }
        self::assertNotSame($grounds[0], $grounds[1]);
        $browser->dark(false);
        $browser->size(390, 844);
        self::assertLessThanOrEqual(390, $browser->run('return document.documentElement.scrollWidth'), 'on a phone');
        $browser->size(1240, 900);
    }

    /** Texts whose contrast with what is behind them is below 4.5 to 1 (WCAG 2, AA). */
    private const FAINT = <<<'JS'
        const parse = color => color.match(/[\d.]+/g).map(Number);
        const light = color => { const [r, g, b] = parse(color).map(v => (v /= 255) <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4); return .2126 * r + .7152 * g + .0722 * b; };
        const ground = element => { for (; element; element = element.parentElement) { const color = getComputedStyle(element).backgroundColor; if ((parse(color)[3] ?? 1) > 0) return color; } return 'rgb(255,255,255)'; };
        return [...document.querySelectorAll('body *')].filter(e => e.checkVisibility() && [...e.childNodes].some(n => n.nodeType === 3 && n.textContent.trim() !== '')).map(e => {
            const [a, b] = [light(getComputedStyle(e).color), light(ground(e))].sort((a, b) => b - a);
            return [e.tagName, e.textContent.slice(0, 40), (a + .05) / (b + .05)];
        }).filter(([, , contrast]) => contrast < 4.5);
        JS;
}
