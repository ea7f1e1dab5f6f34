<?php

declare(strict_types=1);

namespace SharedState\Polyfill;

/** A PHP array as data. */
final class Plain
{
    private const MAX_DEPTH = 32;

    /**
     * What is no data is named and left out: it may be a field that nobody wants. Dates become the seconds since 1970.
     *
     * @param array<array-key, mixed> $values
     * @return array{array<array-key, mixed>, array<string, string>}
     */
    public static function fields(#[\SensitiveParameter] array $values): array
    {
        $fields = $unread = [];
        foreach ($values as $name => $value) {
            if (!Text::isUtf8((string) $name)) {
                continue;
            }
            $what = self::read($value, self::MAX_DEPTH);
            if ($what === null) {
                $fields[$name] = $value;
            } else {
                $unread[(string) $name] = $what;
            }
        }
        return [$fields, $unread];
    }

    /** What the value is, when it is no data. */
    private static function read(#[\SensitiveParameter] mixed &$value, int $depth): ?string
    {
        if ($value instanceof \DateTimeInterface) {
            $value = \DateTimeImmutable::createFromInterface($value)->getTimestamp();
        }
        if (!\is_array($value)) {
            return match (true) {
                \is_string($value) && !Text::isUtf8($value) => 'a string that is not UTF-8',
                $value === null || \is_scalar($value) => null,
                \is_object($value) => 'an object of class ' . strtok($value::class, "\0"),
                default => 'a ' . strtok(get_debug_type($value), ' '),
            };
        }
        if ($depth === 0) {
            return 'something nested more than ' . self::MAX_DEPTH . ' levels deep';
        }
        foreach ($value as $key => $_) {
            $what = Text::isUtf8((string) $key) ? self::read($value[$key], $depth - 1) : 'a key that is not UTF-8';
            if ($what !== null) {
                $holds = 'an array that holds ';
                return str_starts_with($what, $holds) ? $what : $holds . $what;
            }
        }
        return null;
    }
}
