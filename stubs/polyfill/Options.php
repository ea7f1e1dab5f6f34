<?php

declare(strict_types=1);

namespace SharedState\Polyfill;

/** The `$options` of a call. An unknown one, or one of the wrong type, is refused with its name and what it may be. */
abstract class Options
{
    private const MAX_DEPTH = 32;

    /**
     * @param array<array-key, mixed> $given
     * @param int $position of the argument
     * @param list<string> $known
     */
    protected function __construct(
        #[\SensitiveParameter] private readonly array $given,
        public readonly int $position,
        array $known,
    ) {
        foreach ($given as $name => $_) {
            if (!\in_array((string) $name, $known, true)) {
                throw $this->refused("option '$name' is unknown; the known ones are " . implode(', ', $known));
            }
        }
    }

    protected function refused(string $sentence): Refusal
    {
        return Refusal::value($this->position, "cannot be used: $sentence");
    }

    /** Null counts as not given. */
    protected function get(string $name): mixed
    {
        return $this->given[$name] ?? null;
    }

    protected function string(string $name): ?string
    {
        $value = $this->get($name);
        return $value === null || \is_string($value) ? $value : throw $this->wrong($name, 'a string', $value);
    }

    protected function bool(string $name): bool
    {
        $value = $this->get($name) ?? false;
        return \is_bool($value) ? $value : throw $this->wrong($name, 'a bool', $value);
    }

    /** Or text that is one, as settings from an environment are. */
    protected function number(string $name): ?float
    {
        $value = $this->get($name);
        if ($value === null) {
            return null;
        }
        $isNumber = \is_int($value) || \is_float($value) || (\is_string($value) && is_numeric(trim($value)));
        $number = $isNumber ? (float) (\is_string($value) ? trim($value) : $value) : NAN;
        return is_finite($number) ? $number : throw $this->wrong($name, 'a number', $value);
    }

    /** @param list<string> $words */
    protected function word(string $name, array $words): ?string
    {
        $value = $this->string($name);
        $either = implode(' or ', array_map(static fn (string $word): string => "'$word'", $words));
        return $value === null || \in_array($value, $words, true) ? $value : throw $this->refused("option '$name' must be either $either");
    }

    protected function callable(string $name): ?callable
    {
        $value = $this->get($name);
        return $value === null || \is_callable($value) ? $value : throw $this->wrong($name, 'a valid callback', $value);
    }

    /** @return list<string> */
    protected function names(string $name): array
    {
        $value = $this->get($name) ?? [];
        if (!\is_array($value)) {
            throw $this->wrong($name, 'a list of field names', $value);
        }
        foreach ($value as $field) {
            if (!\is_string($field) || !Text::isUtf8($field)) {
                throw $this->wrong($name, 'a list of field names', $field);
            }
        }
        return array_values($value);
    }

    /** A hash that no other value has: keys are sorted, the order of a list counts, 1 is not "1". Empty without one. */
    protected function fingerprint(string $name): string
    {
        $value = $this->get($name);
        if ($value !== null && !\is_string($value) && !\is_array($value)) {
            throw $this->wrong($name, 'a string or an array', $value);
        }
        return $value === null ? '' : substr(hash('sha256', $this->canonical($name, $value, self::MAX_DEPTH)), 0, 32);
    }

    private function canonical(string $name, mixed $value, int $depth): string
    {
        [$tag, $body] = match (true) {
            \is_array($value) => ['a', $depth > 0 ? $this->pairs($name, $value, $depth - 1)
                : throw $this->refused("option '$name' is nested more than " . self::MAX_DEPTH . ' levels deep')],
            \is_int($value) => ['i', (string) $value],
            \is_float($value) => ['f', pack('E', $value)],
            \is_string($value) => ['s', $value],
            \is_bool($value) => ['b', $value ? '1' : '0'],
            $value === null => ['n', ''],
            default => throw $this->refused("option '$name' holds a value of type " . gettype($value)),
        };
        return $tag . pack('J', \strlen($body)) . $body;
    }

    /** @param array<array-key, mixed> $values */
    private function pairs(string $name, array $values, int $depth): string
    {
        $pairs = [];
        foreach ($values as $key => $value) {
            $pairs[] = $this->canonical($name, $key, $depth) . $this->canonical($name, $value, $depth);
        }
        sort($pairs, SORT_STRING);
        return implode('', $pairs);
    }

    private function wrong(string $name, string $wanted, #[\SensitiveParameter] mixed $given): Refusal
    {
        return Refusal::type($this->position, "cannot be used: option '$name' must be $wanted, " . get_debug_type($given) . ' given');
    }
}
