<?php

declare(strict_types=1);

namespace SharedState\Tests\Support;

use RuntimeException;

/** A php-fpm master with the extension loaded: to the extension it is a host, if its host.dir is its own. */
final class Fpm
{
    private Process $process;

    /**
     * @param array<string, array<string, string|int>> $pools name => lines of the pool's section
     * @param array<string, string|int|list<string>> $ini for the whole master (-d); a list is given one by one
     * @param list<string> $zendExtensions such as opcache
     * @param ?string $extension another build of the extension than the one under test
     * @param list<string> $wrapper what starts php-fpm, such as env and its arguments
     */
    public function __construct(
        private readonly string $folder,
        private readonly string $name,
        private readonly array $pools,
        private readonly array $ini = [],
        private readonly array $zendExtensions = [],
        private readonly ?string $extension = null,
        private readonly array $wrapper = [],
    ) {
        $this->start();
    }

    public function start(): void
    {
        $configuration = "[global]\nerror_log = /dev/stderr\nprocess_control_timeout = 10s\n";
        foreach ($this->pools as $pool => $lines) {
            $lines += ['pm' => 'static', 'pm.max_children' => 16];
            $configuration .= "[$pool]\nlisten = {$this->socket($pool)}\nlisten.backlog = 1024\ncatch_workers_output = yes\n";
            foreach ($lines as $key => $value) {
                $configuration .= "$key = $value\n";
            }
        }
        $file = "$this->folder/$this->name.conf";
        file_put_contents($file, $configuration);
        // -n: this machine's own php.ini must not decide a test. Root may run it in CI.
        $command = [Build::fpm(), '-n', '-F', '-y', $file];
        if (posix_geteuid() === 0) {
            $command[] = '-R';
        }
        foreach ($this->zendExtensions as $extension) {
            array_push($command, '-d', "zend_extension=$extension");
        }
        array_push($command, ...($this->extension === null ? Build::loading() : ['-d', "extension=$this->extension"]));
        foreach ($this->ini as $key => $values) {
            foreach ((array) $values as $value) {
                array_push($command, '-d', "$key=\"$value\"");
            }
        }
        $this->process = Process::start([...$this->wrapper, ...$command], $this->log());
        $deadline = microtime(true) + 10;
        // "ready to handle connections" comes when the workers of a static pool have been forked.
        while (substr_count((string) @file_get_contents($this->log()), 'ready to handle connections') === 0) {
            if (!$this->process->isRunning() || microtime(true) > $deadline) {
                throw new RuntimeException("php-fpm $this->name did not start: " . $this->process->tail());
            }
            usleep(10_000);
        }
    }

    public function socket(?string $pool = null): string
    {
        return "$this->folder/$this->name-" . ($pool ?? array_key_first($this->pools)) . '.sock';
    }

    public function log(): string
    {
        return "$this->folder/$this->name.log";
    }

    public function logged(): string
    {
        return (string) file_get_contents($this->log());
    }

    /** Signal to the master: SIGUSR2 reloads. */
    public function signal(int $signal): void
    {
        $this->process->signal($signal);
    }

    /** @return list<int> the workers' process ids */
    public function workers(): array
    {
        $children = (string) @file_get_contents("/proc/{$this->process->pid}/task/{$this->process->pid}/children");
        return array_map('intval', preg_split('/\s+/', $children, -1, PREG_SPLIT_NO_EMPTY));
    }

    public function isRunning(): bool
    {
        return $this->process->isRunning();
    }

    public function stop(): void
    {
        $this->process->stop();
    }
}
