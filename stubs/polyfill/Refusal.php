<?php

declare(strict_types=1);

namespace SharedState\Polyfill;

/** A wrong argument, by its number. It leaves as PHP's own \ValueError or \TypeError: see {@see Call}. */
final class Refusal extends \Exception
{
    private function __construct(public readonly string $class, public readonly int $position, public readonly string $sentence)
    {
        parent::__construct($sentence);
    }

    public static function value(int $position, string $sentence): self
    {
        return new self(\ValueError::class, $position, $sentence);
    }

    public static function type(int $position, string $sentence): self
    {
        return new self(\TypeError::class, $position, $sentence);
    }
}
