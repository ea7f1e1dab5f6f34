<?php

declare(strict_types=1);

namespace SharedState\Polyfill;

/**
 * All that is known of one key, and the rules by which it changes. Whoever keeps it makes each change atomic:
 * see {@see Store}.
 */
final class Record
{
    private const MAX_PAUSE = 60.0;
    /** How long a record is of use without an entry, for its floor and its pauses. */
    private const LINGERS = 86_400;

    private ?Entry $entry = null;
    /** No version below it is served or published. */
    private int $floor = 0;
    /** The right to mint: of whom, for which version, since and until when. */
    private string $holder = '';
    private int $leased = 0;
    private float $leasedAt = 0.0;
    private float $leasedUntil = 0.0;
    /** Failed mints in a row, and when the next may be tried. */
    private int $failures = 0;
    private float $retryAt = 0.0;
    private string $reason = '';
    /** Rejections in a row, and when the next may drop a token. */
    private int $rejections = 0;
    private float $rejectAt = 0.0;
    /** The version that was rejected too soon to be dropped: its life does not count as unrejected. */
    private int $rejectedEarly = 0;

    public function served(float $now): ?Entry
    {
        $entry = $this->known();
        return $entry?->isServable($now) ? $entry : null;
    }

    /** In force, be it too old to be served. */
    public function known(): ?Entry
    {
        return $this->entry !== null && $this->entry->version >= $this->floor ? $this->entry : null;
    }

    /** @param int $newerThan the version that the asker has already */
    public function claim(string $asker, int $newerThan, #[\SensitiveParameter] ?string $rejected, float $length, float $now): Claimed
    {
        $tooSoon = $rejected !== null && $this->reject($rejected, $now) === null;
        $entry = $this->served($now);
        if ($entry !== null && $entry->version > $newerThan) {
            return Claimed::entry($entry);
        }
        if ($now < $this->leasedUntil) {
            return Claimed::busy();
        }
        if ($tooSoon) {
            return Claimed::backOff($this->rejectAt - $now, 'the token was rejected again');
        }
        if ($now < $this->retryAt) {
            return Claimed::backOff($this->retryAt - $now, $this->reason);
        }
        $this->holder = $asker;
        $this->leased = $this->issue($now);
        $this->leasedAt = $now;
        $this->leasedUntil = $now + $length;
        return Claimed::lease($this->leased, $this->why($rejected, $now));
    }

    /** Whether it is in force now: not when its right has run out, or somebody has invalidated it meanwhile. */
    public function commit(string $holder, #[\SensitiveParameter] Entry $entry, float $now): bool
    {
        if (!$this->holds($holder, $now) || $entry->version < $this->floor || $entry->version <= ($this->entry?->version ?? 0)) {
            return false;
        }
        $this->entry = $entry;
        $this->leasedUntil = 0.0;
        $this->failures = 0;
        $this->retryAt = 0.0;
        return true;
    }

    public function abandon(string $holder, float $now): void
    {
        if ($this->holds($holder, $now)) {
            $this->leasedUntil = 0.0;
        }
    }

    /** @return float the pause: $base, doubled with every failure, with up to a quarter at random; and $least at the least */
    public function fail(string $holder, string $reason, float $base, float $least, float $now): float
    {
        if (!$this->holds($holder, $now)) {
            return 0.0;
        }
        $this->leasedUntil = 0.0;
        $pause = max($least, self::pause($base, ++$this->failures) * (1 + mt_rand(0, 250) / 1000));
        $this->retryAt = $now + $pause;
        $this->reason = $reason;
        return $pause;
    }

    /** Whether anything was dropped. */
    public function invalidate(#[\SensitiveParameter] ?string $rejected, float $now): bool
    {
        if ($rejected !== null) {
            return $this->reject($rejected, $now) === true;
        }
        $dropped = $this->served($now) !== null || $now < $this->leasedUntil;
        // Above the right that is out, so that what it brings is refused.
        $this->floor = $this->issue($now);
        return $dropped;
    }

    /** @return array{holder: string, since: float, until: float}|null of whom the right to mint is */
    public function lease(float $now): ?array
    {
        return $now < $this->leasedUntil ? ['holder' => $this->holder, 'since' => $this->leasedAt, 'until' => $this->leasedUntil] : null;
    }

    /** @return array{until: float, failures: int, reason: string}|null while nobody may mint because the last mints failed */
    public function backoff(float $now): ?array
    {
        return $now < $this->retryAt ? ['until' => $this->retryAt, 'failures' => $this->failures, 'reason' => $this->reason] : null;
    }

    public function lingersUntil(float $now): float
    {
        return max($now + self::LINGERS, $this->entry?->expiresAt ?? 0.0);
    }

    /** True: dropped; false: not the current one; null: another was dropped a moment ago, so this one stays for a while. */
    private function reject(#[\SensitiveParameter] string $rejected, float $now): ?bool
    {
        $entry = $this->known();
        if ($entry === null || !$entry->is($rejected)) {
            return false;
        }
        if ($entry->livedHalf($now) && $this->rejectedEarly !== $entry->version) {
            $this->rejections = 0;
        }
        if ($this->rejections > 0 && $now < $this->rejectAt) {
            $this->rejectedEarly = $entry->version;
            return null;
        }
        // Not above a mint in flight: that one is already the answer to this rejection.
        $this->floor = $entry->version + 1;
        $this->rejectAt = $now + self::pause(1.0, ++$this->rejections);
        return true;
    }

    /** One of {@see Tally::REASONS}. */
    private function why(#[\SensitiveParameter] ?string $rejected, float $now): string
    {
        return match (true) {
            $rejected !== null => 'rejected',
            $this->served($now) !== null => 'refresh',
            $this->entry === null => 'cold',
            $this->entry->version < $this->floor => 'rejected',
            default => 'expired',
        };
    }

    private function holds(string $holder, float $now): bool
    {
        return $this->holder === $holder && $now < $this->leasedUntil;
    }

    /** Microseconds, and above all that was issued. */
    private function issue(float $now): int
    {
        return max((int) ($now * 1e6), 1 + max($this->floor, $this->leased, $this->entry?->version ?? 0));
    }

    private static function pause(float $base, int $count): float
    {
        return min(self::MAX_PAUSE, $base * 2 ** min($count - 1, 16));
    }
}
