<?php

declare(strict_types=1);

namespace SharedState\Polyfill;

/** The answer to a claim: an entry, the right to mint a version, a pause with its reason, or that somebody else is at it. */
final class Claimed
{
    private function __construct(
        #[\SensitiveParameter] public readonly ?Entry $entry = null,
        public readonly ?int $version = null,
        public readonly ?float $wait = null,
        public readonly string $reason = '',
    ) {
    }

    public static function entry(#[\SensitiveParameter] Entry $entry): self
    {
        return new self(entry: $entry);
    }

    /** @param string $reason why it has to be minted */
    public static function lease(int $version, string $reason): self
    {
        return new self(version: $version, reason: $reason);
    }

    public static function backOff(float $wait, string $reason): self
    {
        return new self(wait: $wait, reason: $reason);
    }

    public static function busy(): self
    {
        return new self();
    }
}
