<?php

declare(strict_types=1);

namespace SharedState\Polyfill;

/** For one process: there is nobody to exclude. */
final class ArrayStore extends Store
{
    /** From so many names on a long-running process looks for dead ones. */
    private const MANY = 10_000;

    /** @var array<string, Record> */
    private array $records = [];
    /** @var array<string, int> */
    private array $counters = [];
    /** @var list<string> */
    private array $families = [];

    public function name(): string
    {
        return 'array';
    }

    public function read(Key $key): Record
    {
        return $this->records[$key->text()] ?? new Record();
    }

    public function change(Key $key, #[\SensitiveParameter] \Closure $change): mixed
    {
        if (\count($this->records) >= self::MANY && !isset($this->records[$key->text()])) {
            $now = microtime(true);
            $this->records = array_filter($this->records, static fn (Record $it): bool => $it->served($now) !== null);
        }
        return $change($this->records[$key->text()] ??= new Record());
    }

    public function keys(): iterable
    {
        foreach (array_keys($this->records) as $text) {
            yield Key::of($text);
        }
    }

    public function family(int $number, ?string $asking = null): ?string
    {
        if ($asking !== null) {
            $this->families[$number] ??= $asking;
        }
        return $this->families[$number] ?? null;
    }

    public function tier(): string
    {
        return 'memo';
    }

    public function count(string $counter): void
    {
        $this->counters[$counter] = $this->counted($counter) + 1;
    }

    public function counted(string $counter): int
    {
        return $this->counters[$counter] ?? 0;
    }
}
