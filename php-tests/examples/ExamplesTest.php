<?php

declare(strict_types=1);

use SharedState\Tests\Support\Build;
use SharedState\Tests\Support\Cli;
use SharedState\Tests\Support\CliResult;
use SharedState\Tests\Support\Crm;
use SharedState\Tests\Support\Fpm;
use SharedState\Tests\Support\Nginx;
use SharedState\Tests\Support\Process;
use SharedState\Tests\Support\RatesServer;
use SharedState\Tests\Support\TestCase;

/** Each of examples/ as it stands, with its real libraries, against a CRM that refuses what it has not issued. */
final class ExamplesTest extends TestCase
{
    private const ORDERS = ['orders' => [['id' => 1, 'total' => '19.99', 'currency' => 'EUR'], ['id' => 2, 'total' => '5.00', 'currency' => 'EUR']]];

    private Crm $crm;
    private string $examples;
    private Fpm $fpm;

    protected function setUp(): void
    {
        parent::setUp();
        $this->crm = new Crm("$this->folder/crm");
        // A copy, for what Composer would put beside them.
        $this->examples = "$this->folder/examples";
        exec('cp -r ' . escapeshellarg(dirname(__DIR__, 2) . '/examples') . ' ' . escapeshellarg($this->examples));
        foreach (glob("$this->examples/*/composer.json") as $composer) {
            $vendor = dirname($composer) . '/vendor';
            mkdir($vendor);
            copy(dirname(__DIR__) . '/support/vendor.php', "$vendor/autoload.php");
            copy(dirname(__DIR__) . '/support/league.php', "$vendor/league.php");
        }
    }

    /** @return list<string> options of a PHP that has what the libraries want, and knows nothing of this machine's php.ini */
    private function options(): array
    {
        return [
            '-d', 'extension=ctype', '-d', 'extension=curl', '-d', 'extension=mbstring',
            '-d', 'include_path=.:/usr/share/php', '-d', "sharedstate.host.dir=$this->folder",
        ];
    }

    private function runExample(string $file): CliResult
    {
        $result = Cli::run([...$this->options(), "$this->examples/$file"], [], $this->crm->environment());
        // Debian's Laravel and Guzzle are older than its PHP, which says so.
        $errors = trim(preg_replace('#^Deprecated: .+ in /usr/share/php/.+\n?#m', '', $result->errors));
        self::assertSame([0, ''], [$result->status, $errors], $result->all());
        $this->assertNamesNone($this->crm, $result->all());
        return $result;
    }

    private function assertNamesNone(Crm $crm, string $text): void
    {
        self::assertNotSame([], $crm->tokens());
        foreach ([...$crm->tokens(), $crm->environment()['CRM_CLIENT_SECRET']] as $secret) {
            self::assertStringNotContainsString($secret, $text);
        }
    }

    /** @return array<string, array{string}> */
    public static function clients(): array
    {
        return ['Guzzle' => ['guzzle/orders.php'], 'Laravel' => ['laravel/orders.php'], 'Symfony' => ['symfony/orders.php']];
    }

    /** @dataProvider clients */
    public function test_a_token_that_the_api_refuses_costs_one_mint_and_one_more_call(string $file): void
    {
        for ($i = 0; $i < 2; $i++) {
            self::assertSame(self::ORDERS, json_decode($this->runExample($file)->output, true));
        }
        self::assertSame(1, $this->crm->answered('POST /token 200'), 'two processes share a mint');
        self::assertSame(0, $this->crm->answered('GET /orders 401'));

        $this->crm->revoke();
        self::assertSame(self::ORDERS, json_decode($this->runExample($file)->output, true));
        self::assertSame(2, $this->crm->answered('POST /token 200'));
        self::assertSame(1, $this->crm->answered('GET /orders 401'));
        self::assertSame(3, $this->crm->answered('GET /orders 200'));
    }

    /** @dataProvider clients */
    public function test_an_api_that_refuses_every_token_is_asked_twice_and_no_more(string $file): void
    {
        $this->crm->refuseAll();
        $result = Cli::run([...$this->options(), "$this->examples/$file"], [], $this->crm->environment());
        self::assertNotSame(0, $result->status);
        self::assertStringContainsString('401', $result->all());
        self::assertSame(2, $this->crm->answered('GET /orders 401'));
        self::assertSame(2, $this->crm->answered('POST /token 200'));
        $this->assertNamesNone($this->crm, $result->all());
    }

    /** @dataProvider clients */
    public function test_a_redirect_to_another_host_does_not_take_the_token_along(string $file): void
    {
        $router = "$this->folder/moved.php";
        file_put_contents($router, '<?php if ($_SERVER["REQUEST_URI"] === "/orders") { header("Location: ' . $this->crm->url . '/orders"); return; } '
            . 'require ' . var_export(Crm::script(), true) . ';');
        // The same tokens: the other host would take one, if it got one.
        $moved = new Crm("$this->folder/crm", router: $router);
        $result = Cli::run([...$this->options(), "$this->examples/$file"], [], $moved->environment());
        self::assertStringContainsString('401', $result->all());
        self::assertGreaterThan(0, $this->crm->answered('GET /orders 401'));
        self::assertSame(0, $this->crm->answered('GET /orders 200'));
    }

    public function test_guzzle_requests_that_are_refused_together_share_one_mint(): void
    {
        $this->runExample('guzzle/orders.php');
        $this->crm->revoke();
        file_put_contents("$this->examples/guzzle/together.php", <<<'PHP'
            <?php
            $crm = require __DIR__ . '/client.php';
            $answers = GuzzleHttp\Promise\Utils::unwrap(array_map(fn () => $crm->getAsync('/orders'), range(1, 6)));
            echo implode(' ', array_map(fn ($answer) => $answer->getStatusCode(), $answers));
            PHP);
        self::assertSame('200 200 200 200 200 200', $this->runExample('guzzle/together.php')->output);
        self::assertSame(6, $this->crm->answered('GET /orders 401'));
        self::assertSame(2, $this->crm->answered('POST /token 200'));
    }

    private function shop(): Nginx
    {
        $rates = new RatesServer($this->folder);
        $lines = [];
        foreach ($this->crm->environment() as $name => $value) {
            $lines["env[$name]"] = $value;
        }
        $this->fpm = $this->host('shop', ['fx.sources' => $rates->ecb()], $lines, ['extension' => 'curl']);
        return new Nginx($this->folder, $this->fpm, "$this->examples/plain");
    }

    public function test_a_page_shows_orders_in_the_visitors_currency_and_survives_a_revoked_token(): void
    {
        $shop = $this->shop();
        [$page] = $shop->get('index.php', []);
        self::assertSame("1 EUR is 1.1172 USD\norder 1: 19.99 EUR, that is 22.33 USD\norder 2: 5.00 EUR, that is 5.59 USD\n", $page);
        [$page] = $shop->get('index.php', ['currency' => 'JPY']);
        self::assertStringContainsString("19.99 EUR, that is 3512 JPY\n", $page);

        $this->crm->revoke();
        self::assertStringContainsString("19.99 EUR, that is 22.33 USD\n", $shop->get('index.php', ['currency' => 'nonsense'])[0]);
        self::assertSame(2, $this->crm->answered('POST /token 200'));
        self::assertSame(1, $this->crm->answered('GET /orders 401'));
        $this->assertNamesNone($this->crm, $this->fpm->logged());
    }

    public function test_a_page_says_sorry_and_the_log_says_why_when_no_token_is_to_be_had(): void
    {
        $shop = $this->shop();
        $this->crm->stop();
        self::assertSame("Please come back in a minute.\n", $shop->get('index.php', [])[0]);
        $this->until('the log', fn (): bool => str_contains($this->fpm->logged(), 'the CRM cannot be reached'));
    }

    public function test_two_workers_share_each_renewal_and_end_well_when_told(): void
    {
        // Due after 3.2 s, and served until 1 s before its end.
        $crm = new Crm("$this->folder/crm-of-short-tokens", 5);
        $workers = [];
        foreach (['one', 'two'] as $name) {
            $workers[$name] = Process::start([
                Build::php(), '-n', '-d', 'extension=' . Build::extension(), ...$this->options(), "$this->examples/worker/worker.php",
            ], "$this->folder/worker-$name.log", $crm->environment() + getenv());
        }
        $this->until('a renewal', static fn (): bool => count($crm->tokens()) >= 2);
        $before = $crm->answered('GET /orders 200');
        $this->until('jobs with the new token', static fn (): bool => $crm->answered('GET /orders 200') > max(600, $before + 50));

        foreach ($workers as $worker) {
            $worker->signal(SIGTERM);
            self::assertSame(0, $worker->exitStatus(), $worker->tail());
            self::assertSame(1, preg_match('/^(\d+) jobs done, 0 failed, (\d+) tokens seen, (-?\d+) bytes of memory more/', $worker->tail(), $match), $worker->tail());
            [, $jobs, $tokens, $bytes] = array_map('intval', $match);
            self::assertGreaterThan(100, $jobs);
            self::assertGreaterThanOrEqual(2, $tokens, 'it went on over a renewal');
            // Nothing is kept of a job: one pointer each would be more.
            self::assertLessThan(8 * $jobs, $bytes);
            $this->assertNamesNone($crm, $worker->tail());
        }
        $issued = $crm->issued();
        for ($i = 1; $i < count($issued); $i++) {
            self::assertGreaterThan(3.0, $issued[$i] - $issued[$i - 1], 'one mint for a lifetime, not one for each worker');
        }
        self::assertSame(0, $crm->answered('GET /orders 401'), 'no job carried an expired token');
    }

    public function test_a_token_object_of_league_is_understood_with_an_expiry_and_without(): void
    {
        $said = $this->runExample('league/token.php')->output;
        self::assertSame("crm: a token of 40 characters for 60 minutes\ncrm-no-expiry: a token of 40 characters for 30 minutes\n", $said);
        self::assertSame($said, $this->runExample('league/token.php')->output);
        self::assertSame(1, $this->crm->answered('POST /token 200'));
        self::assertSame(1, $this->crm->answered('POST /token/no-expiry 200'));
    }
}
