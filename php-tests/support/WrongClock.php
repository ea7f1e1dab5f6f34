<?php

declare(strict_types=1);

namespace SharedState\Tests\Support;

use RuntimeException;

/** The wall clock of one process, off by so many seconds. The monotonic clock goes on as it does. */
final class WrongClock
{
    private const LIBRARY = '/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1';

    private function __construct(private readonly string $file, private readonly bool $ofPhp)
    {
    }

    public static function ofPhp(string $file, float $off = 0.0): self
    {
        TestCase::assertFileExists(self::LIBRARY, 'the Debian package libfaketime');
        return (new self($file, true))->set($off);
    }

    /** Of any other program, by a library of ours: {@see clock.c}. */
    public static function ofServer(string $file, float $off = 0.0): self
    {
        exec('cc -shared -fPIC -O1 -Wall -o ' . escapeshellarg("$file.so") . ' ' . escapeshellarg(__DIR__ . '/clock.c') . ' 2>&1', $said, $status);
        if ($status !== 0) {
            throw new RuntimeException('clock.c: ' . implode("\n", $said));
        }
        return (new self($file, false))->set($off);
    }

    public function set(float $off): self
    {
        if ($this->ofPhp) {
            file_put_contents($this->file, sprintf('%+.3f', $off));
        } else {
            // In place: the server has it mapped.
            $file = fopen($this->file, 'c');
            fwrite($file, pack('q', (int) round($off * 1e9)));
            fclose($file);
        }
        return $this;
    }

    /** @return list<string> what a command is started by, to have this clock */
    public function wrapper(): array
    {
        if (!$this->ofPhp) {
            return ['env', "LD_PRELOAD=$this->file.so", "WRONG_CLOCK=$this->file"];
        }
        // PHP binds an extension to libc before anything preloaded, unless it has been preloaded as well.
        return ['env', 'LD_PRELOAD=' . self::LIBRARY . ' ' . Build::extension(), 'DONT_FAKE_MONOTONIC=1', 'FAKETIME_NO_CACHE=1',
            "FAKETIME_TIMESTAMP_FILE=$this->file"];
    }

    /** libfaketime leaves these behind for a process that is killed. */
    public static function sweep(): void
    {
        foreach (glob('/dev/shm/{faketime_shm_,sem.faketime_sem_}*', GLOB_BRACE) as $file) {
            if (!is_dir('/proc/' . preg_replace('/\D/', '', $file))) {
                @unlink($file);
            }
        }
    }
}
