<?php

declare(strict_types=1);

use SharedState\Tests\Support\Build;
use SharedState\Tests\Support\Crowd;
use SharedState\Tests\Support\Fpm;
use SharedState\Tests\Support\Process;
use SharedState\Tests\Support\RedisServer;
use SharedState\Tests\Support\Response;
use SharedState\Tests\Support\TestCase;

/** An endpoint that has had enough hears of the whole fleet once per back-off, and everybody is told why. */
final class IssuerTest extends TestCase
{
    private const BASE_MS = 400;
    private const SECONDS = 5.0;

    private int $port;

    private function answerWith(int $status): void
    {
        file_put_contents("$this->folder/status.new", (string) $status);
        rename("$this->folder/status.new", "$this->folder/status");
    }

    private function startIssuer(): void
    {
        $this->port = RedisServer::freePort();
        $this->answerWith(200);
        touch("$this->folder/asked");
        Process::start([Build::php(), '-n', '-S', "127.0.0.1:$this->port", dirname(__DIR__) . '/support/issuer.php'], "$this->folder/issuer.log",
            ['ISSUER_LOG' => "$this->folder/asked", 'ISSUER_STATUS' => "$this->folder/status"] + getenv());
        $this->until('the issuer', fn (): bool => (bool) @stream_socket_client("tcp://127.0.0.1:$this->port", $code, $message, 0.1));
    }

    /** @return list<float> when it was asked */
    private function asked(): array
    {
        return array_map('floatval', file("$this->folder/asked", FILE_IGNORE_NEW_LINES));
    }

    /** @return array{Fpm, Fpm} */
    private function hosts(): array
    {
        $settings = ['redis.dsn' => $this->redis()->dsn(), 'token.failure_backoff_ms' => self::BASE_MS];
        return [$this->host('north', $settings, ['pm.max_children' => 6]), $this->host('south', $settings, ['pm.max_children' => 6])];
    }

    /**
     * @param array{Fpm, Fpm} $hosts
     * @return list<Response>
     */
    private function load(array $hosts, array $options = []): array
    {
        $crowd = new Crowd();
        return array_values($crowd->load(8, self::SECONDS, 0.02, fn (int $client) => $crowd->send($hosts[$client % 2]->socket(),
            $this->page('issuer.php'), ['port' => $this->port, 'options' => json_encode((object) $options)])));
    }

    /** @param list<float> $attempts */
    private function assertBackedOff(array $attempts): void
    {
        self::assertGreaterThanOrEqual(3, count($attempts));
        for ($i = 1; $i < count($attempts); $i++) {
            self::assertGreaterThanOrEqual(self::BASE_MS / 1000 * 2 ** ($i - 1), $attempts[$i] - $attempts[$i - 1], "attempt $i");
        }
    }

    public static function refusals(): array
    {
        return ['429' => [429], '500' => [500]];
    }

    /**
     * @dataProvider refusals
     * @group slow
     */
    public function test_without_a_token_everybody_is_told_why_and_one_asks_per_back_off(int $status): void
    {
        $this->startIssuer();
        $this->answerWith($status);
        $responses = $this->load($this->hosts());
        $attempts = $this->asked();
        $this->assertBackedOff($attempts);
        $slow = 0;
        foreach ($responses as $response) {
            $said = $response->json();
            self::assertSame('SharedState\MintFailed', $said['error'] ?? null, $response->describe());
            self::assertStringContainsString(" $status ", $said['message']);
            $slow += (int) ($said['took'] > 0.5);
        }
        // Those who asked, or waited for the first answer on a busy machine.
        self::assertLessThanOrEqual(8 + count($attempts), $slow, 'told at once');
        fprintf(STDERR, "\n    HTTP %d for %.0f s: %d requests on two hosts, the issuer was asked %d times\n", $status, self::SECONDS, count($responses), count($attempts));
    }

    public function test_with_a_usable_token_everybody_gets_it_and_one_asks_per_back_off(): void
    {
        $this->startIssuer();
        $hosts = $this->hosts();
        // Due at once, usable for 48 s.
        $options = ['refresh_ratio' => 0.001];
        $get = fn (Fpm $host): ?string => $this->get($host, 'issuer.php', ['port' => $this->port, 'options' => json_encode($options)])->token();
        $token = $get($hosts[0]);
        self::assertSame($token, $get($hosts[1]));
        $this->answerWith(429);
        $before = count($this->asked());
        $responses = $this->load($hosts, $options);
        foreach ($responses as $response) {
            self::assertSame($token, $response->token(), $response->describe());
        }
        $this->assertBackedOff(array_slice($this->asked(), $before));
    }
}
