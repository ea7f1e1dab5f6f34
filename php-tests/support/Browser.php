<?php

declare(strict_types=1);

namespace SharedState\Tests\Support;

use RuntimeException;

/** A headless Chromium, driven by the W3C WebDriver protocol through chromedriver. */
final class Browser
{
    private Process $driver;
    private string $session;

    public function __construct(string $folder)
    {
        $port = RedisServer::freePort();
        $this->driver = Process::start(['chromedriver', "--port=$port"], "$folder/chromedriver.out", ['HOME' => $folder, 'TMPDIR' => $folder] + getenv());
        $this->session = "http://127.0.0.1:$port/session";
        $deadline = microtime(true) + 10;
        while (!@stream_socket_client("tcp://127.0.0.1:$port", $code, $message, 0.2)) {
            if (!$this->driver->isRunning() || microtime(true) > $deadline) {
                throw new RuntimeException('chromedriver did not start: ' . $this->driver->tail());
            }
            usleep(10_000);
        }
        $arguments = ['--headless', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking', '--disable-component-update', '--disable-sync',
            '--disable-dev-shm-usage', "--user-data-dir=$folder/chromium"];
        if (posix_geteuid() === 0) {
            $arguments[] = '--no-sandbox';
        }
        $wanted = ['goog:chromeOptions' => ['args' => $arguments], 'goog:loggingPrefs' => ['browser' => 'ALL']];
        $this->session .= '/' . $this->call('POST', '', ['capabilities' => ['alwaysMatch' => $wanted]])['sessionId'];
    }

    public function open(string $address): void
    {
        $this->call('POST', '/url', ['url' => $address]);
    }

    /** What the script returns: "return document.title". */
    public function run(string $script, mixed ...$arguments): mixed
    {
        return $this->call('POST', '/execute/sync', ['script' => $script, 'args' => $arguments]);
    }

    /** The text of the first element of the selector, as it is seen. */
    public function text(string $selector): string
    {
        return (string) $this->run('return document.querySelector(arguments[0])?.innerText', $selector);
    }

    /** @return list<string> what the console has been told since this was asked last: errors, and what the page's policy refused */
    public function console(): array
    {
        return array_column($this->call('POST', '/se/log', ['type' => 'browser']), 'message');
    }

    public function dark(bool $dark): void
    {
        $this->devTools('Emulation.setEmulatedMedia', ['features' => [['name' => 'prefers-color-scheme', 'value' => $dark ? 'dark' : 'light']]]);
    }

    public function withoutScripts(bool $without = true): void
    {
        $this->devTools('Emulation.setScriptExecutionDisabled', ['value' => $without]);
    }

    public function size(int $width, int $height, float $scale = 1.0): void
    {
        $this->devTools('Emulation.setDeviceMetricsOverride', ['width' => $width, 'height' => $height, 'deviceScaleFactor' => $scale, 'mobile' => false]);
    }

    /** A picture of the page, from its top to so many pixels, or to its end. */
    public function picture(string $file, ?int $height = null): void
    {
        [$width, $all] = $this->run('return [innerWidth, document.documentElement.scrollHeight]');
        $clip = ['x' => 0, 'y' => 0, 'width' => $width, 'height' => min($height ?? $all, $all), 'scale' => 1];
        $taken = $this->devTools('Page.captureScreenshot', ['format' => 'png', 'captureBeyondViewport' => true, 'clip' => $clip]);
        file_put_contents($file, base64_decode($taken['data']));
    }

    /** What WebDriver has no word for. @param array<string, mixed> $parameters */
    private function devTools(string $command, array $parameters): mixed
    {
        return $this->call('POST', '/goog/cdp/execute', ['cmd' => $command, 'params' => $parameters]);
    }

    private function call(string $method, string $path, array $body): mixed
    {
        $context = stream_context_create(['http' => ['method' => $method, 'header' => 'Content-Type: application/json', 'content' => json_encode($body, JSON_THROW_ON_ERROR),
            'ignore_errors' => true, 'timeout' => 30.0]]);
        $stream = fopen($this->session . $path, 'r', false, $context);
        // chromedriver keeps the connection open whatever it is asked: its end is not the end of the answer.
        preg_match('/^Content-Length:\s*(\d+)/mi', implode("\n", stream_get_meta_data($stream)['wrapper_data']), $length);
        $answer = json_decode((string) stream_get_contents($stream, (int) $length[1]), true)['value'] ?? null;
        fclose($stream);
        if (isset($answer['error'])) {
            throw new RuntimeException("the browser: $answer[error]: $answer[message]");
        }
        return $answer;
    }
}
