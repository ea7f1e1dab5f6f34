<?php

declare(strict_types=1);

namespace SharedState\Tests\Support;

use RuntimeException;

/**
 * A server of a test, in a process group of its own.
 *
 * It dies with the tests in three ways, because each of them alone has a hole: the test stops it; a shutdown
 * function kills the groups that are left (fatal errors, exit, Ctrl-C); and the kernel tells it to end when this
 * process is gone without a word (kill -9).
 */
final class Process
{
    /** @var array<int, self> the running ones, by process group */
    private static array $running = [];

    /** @var resource */
    private $handle;

    private function __construct(public readonly int $pid, $handle, public readonly string $log)
    {
        $this->handle = $handle;
    }

    /**
     * @param list<string> $command
     * @param array<string, string>|null $environment ours if null
     */
    public static function start(array $command, string $log, ?array $environment = null): self
    {
        $output = ['file', $log, 'a'];
        // setsid does not fork here, so the pid that PHP reports is the server's own, and its group's.
        $handle = proc_open(
            ['setsid', 'setpriv', '--pdeathsig', 'TERM', '--', ...$command],
            [['file', '/dev/null', 'r'], $output, $output],
            $pipes,
            null,
            $environment,
        );
        if ($handle === false) {
            throw new RuntimeException('cannot start ' . implode(' ', $command));
        }
        $process = new self(proc_get_status($handle)['pid'], $handle, $log);
        return self::$running[$process->pid] = $process;
    }

    public function isRunning(): bool
    {
        return is_resource($this->handle) && proc_get_status($this->handle)['running'];
    }

    public function signal(int $signal): void
    {
        posix_kill($this->pid, $signal);
    }

    /** SIGTERM, and after a while SIGKILL to the whole group: a stopped worker hears nothing else. */
    public function stop(float $patience = 2.0): void
    {
        $this->signal(SIGTERM);
        $this->await($patience);
        $this->kill();
    }

    public function kill(): void
    {
        @posix_kill(-$this->pid, SIGKILL);
        $this->await(2.0);
        if (is_resource($this->handle)) {
            proc_close($this->handle);
        }
        unset(self::$running[$this->pid]);
    }

    /** What it exits with; null if it does not within that time. PHP before 8.3 tells that once. */
    public function exitStatus(float $seconds = 5.0): ?int
    {
        $deadline = microtime(true) + $seconds;
        while (($status = proc_get_status($this->handle))['running'] && microtime(true) < $deadline) {
            usleep(5_000);
        }
        return $status['running'] ? null : $status['exitcode'];
    }

    public function tail(int $bytes = 4000): string
    {
        return substr((string) @file_get_contents($this->log), -$bytes);
    }

    private function await(float $seconds): void
    {
        $deadline = microtime(true) + $seconds;
        while ($this->isRunning() && microtime(true) < $deadline) {
            usleep(5_000);
        }
    }

    /** Who leaves a test early (a failure, a skipped step) leaves its servers to this. */
    public static function stopAll(): void
    {
        foreach (self::$running as $process) {
            $process->signal(SIGTERM);
        }
        foreach (self::$running as $process) {
            $process->stop(1.0);
        }
    }

    public static function endAllWithThisOne(): void
    {
        // In a forked child of a test this would end the parent's servers.
        $owner = getmypid();
        register_shutdown_function(static function () use ($owner): void {
            if (getmypid() === $owner) {
                self::stopAll();
                Temp::removeAll();
            }
        });
        if (function_exists('pcntl_async_signals')) {
            pcntl_async_signals(true);
            foreach ([SIGINT, SIGTERM, SIGHUP] as $signal) {
                pcntl_signal($signal, static fn () => exit(128 + $signal));
            }
        }
    }
}
