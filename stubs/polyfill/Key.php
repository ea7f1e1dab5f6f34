<?php

declare(strict_types=1);

namespace SharedState\Polyfill;

/** What an entry is called: token or sheet, name, and the hash of its fingerprint. */
final class Key
{
    private const MAX_NAME = 200;

    private function __construct(public readonly bool $isToken, public readonly string $name, public readonly string $fingerprint)
    {
    }

    /** @throws Refusal */
    public static function token(string $name, string $fingerprint, int $position): self
    {
        $why = self::why($name);
        return $why === null ? new self(true, $name, $fingerprint) : throw Refusal::value($position, $why);
    }

    /** @throws Refusal */
    public static function sheet(string $name, int $position): self
    {
        $why = self::why($name);
        return $why === null ? new self(false, $name, '') : throw Refusal::value($position, "cannot be used: option 'sheet' $why");
    }

    /** Injective, and printable. */
    public function text(): string
    {
        return ($this->isToken ? 't:' : 's:') . "$this->fingerprint:" . rawurlencode($this->name);
    }

    /** Back from its text. */
    public static function of(string $text): self
    {
        [$kind, $fingerprint, $name] = explode(':', $text);
        return new self($kind === 't', rawurldecode($name), $fingerprint);
    }

    /** The noun, for a sentence. */
    public function noun(): string
    {
        return ($this->isToken ? 'token ' : 'rate sheet ') . '"' . $this->name . '"';
    }

    public function act(): string
    {
        return $this->isToken ? 'minting' : 'fetching';
    }

    public function callable(): string
    {
        return $this->isToken ? '$mint' : '$fetch (option \'fetch\')';
    }

    private static function why(string $name): ?string
    {
        $long = \strlen($name);
        return match (true) {
            $long === 0 => 'must not be empty',
            $long > self::MAX_NAME => 'must be at most ' . self::MAX_NAME . " bytes long, $long given",
            ($at = strcspn($name, implode(array_map(chr(...), [...range(0, 31), 127])))) < $long
                => "must not contain control characters, byte $at is one",
            default => null,
        };
    }
}
