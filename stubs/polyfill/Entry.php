<?php

declare(strict_types=1);

namespace SharedState\Polyfill;

/** A value with its version and the instants of its life, in Unix seconds. */
final class Entry
{
    public const BY_NOBODY = ['host' => '', 'sapi' => '', 'script' => ''];

    /**
     * @param string|Holding $value of a token, or of a sheet
     * @param float $mintedAt taken before the callable runs: a slow issuer shortens the lifetime, never stretches it
     * @param float $refreshAt from here on one process renews while the others are served
     * @param float $usableUntil a token is served until here; a sheet is stale after
     * @param array<string, mixed> $kept
     * @param array{host: string, sapi: string, script: string} $mintedBy
     */
    public function __construct(
        public readonly int $version,
        #[\SensitiveParameter] public readonly string|Holding $value,
        public readonly float $mintedAt,
        public readonly float $refreshAt,
        public readonly float $usableUntil,
        public readonly float $expiresAt,
        public readonly array $kept = [],
        public readonly array $mintedBy = self::BY_NOBODY,
    ) {
    }

    /**
     * The margin is at most a fifth of the lifetime: with one of 60 s a token of 60 s could never be kept.
     *
     * @param array<string, mixed> $kept
     */
    public static function token(int $version, #[\SensitiveParameter] string $token, float $mintedAt, float $lifetime, float $margin, float $ratio, array $kept): self
    {
        $usable = $lifetime - min($margin, $lifetime / 5);
        return new self($version, $token, $mintedAt, $mintedAt + $usable * $ratio, $mintedAt + $usable, $mintedAt + $lifetime, $kept, self::byUs());
    }

    /** Due an interval after it was asked for, stale two after it was confirmed, gone $maxStale after it was asked for or $maxAge after its date. */
    public static function sheet(int $version, Holding $holding, float $confirmedAt, float $askedAt, Settings $settings): self
    {
        $interval = $settings->seconds('fx.refresh_interval_s');
        $gone = $askedAt + $settings->seconds('fx.max_stale_s');
        if ($holding->sheet->asOf !== null) {
            $gone = min($gone, $holding->sheet->asOf + $settings->seconds('fx.max_age_s'));
        }
        return new self($version, $holding, $confirmedAt, $askedAt + $interval, $confirmedAt + 2 * $interval, $gone, [], self::byUs());
    }

    public function isServable(float $now): bool
    {
        return $now < (\is_string($this->value) ? $this->usableUntil : $this->expiresAt);
    }

    /** In the extension's words; a token is never stale. */
    public function freshness(float $now): string
    {
        return match (true) {
            !$this->isServable($now) => 'gone',
            !$this->isDue($now) => 'fresh',
            default => $this->isStale($now) ? 'stale' : 'refresh_due',
        };
    }

    public function isDue(float $now): bool
    {
        return $now >= $this->refreshAt;
    }

    /** Of a sheet. */
    public function isStale(float $now): bool
    {
        return $now >= $this->usableUntil;
    }

    public function is(#[\SensitiveParameter] string $token): bool
    {
        return \is_string($this->value) && hash_equals($this->value, $token);
    }

    /** A token that worked this long shows that the issuer and the API are at one again. */
    public function livedHalf(float $now): bool
    {
        return $now - $this->mintedAt >= ($this->usableUntil - $this->mintedAt) / 2;
    }

    /** @return array{host: string, sapi: string, script: string} */
    private static function byUs(): array
    {
        return ['host' => (string) gethostname(), 'sapi' => PHP_SAPI, 'script' => (string) ($_SERVER['SCRIPT_FILENAME'] ?? '')];
    }

    /** @return array<string, mixed> never the token: var_dump() and print_r() of a trace end up in logs */
    public function __debugInfo(): array
    {
        return ['version' => $this->version];
    }
}
