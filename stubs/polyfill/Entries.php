<?php

declare(strict_types=1);

namespace SharedState\Polyfill;

/** sharedstate_entries(): what the store has, name by name, and never a value. */
final class Entries
{
    /** Enough of a fingerprint to tell two entries of one name apart. */
    private const FINGERPRINT = 8;

    /** @return list<array<string, mixed>> */
    public static function all(int $limit): array
    {
        if ($limit < 1) {
            throw Refusal::value(1, "must be a number of entries, 1 or more; $limit given");
        }
        Settings::current();
        $store = Store::current();
        $entries = [];
        foreach ($store->keys() as $key) {
            $entries[] = self::described($key, $store->read($key), microtime(true));
            if (\count($entries) === $limit) {
                break;
            }
        }
        return $entries;
    }

    /** @return array<string, mixed> */
    private static function described(Key $key, Record $record, float $now): array
    {
        $entry = $record->known();
        return [
            'name' => $key->name,
            'kind' => $key->isToken ? 'token' : 'rates',
            'fingerprint' => $key->fingerprint === '' ? null : substr($key->fingerprint, 0, self::FINGERPRINT),
            'family' => Tally::family($key->name),
            'version' => $entry->version ?? 0,
            'freshness' => $entry?->freshness($now) ?? 'gone',
            'minted_at' => self::second($entry?->mintedAt),
            'refresh_at' => self::second($entry?->refreshAt),
            'usable_until' => self::second($entry?->usableUntil),
            'expires_at' => self::second($entry?->expiresAt),
            'age' => $entry === null ? null : max(0, (int) floor($now - $entry->mintedAt)),
            'source' => $entry === null ? '' : Sheet::SOURCE,
            'minted_by' => $entry->mintedBy ?? Entry::BY_NOBODY,
            'unsynced' => false,
            'confirmed' => $entry !== null,
            'flight' => self::flight($record, $now),
            'backoff' => self::backoff($record, $now),
            'rates' => $entry?->value instanceof Holding ? self::rates($entry->value, $entry->mintedAt) : null,
        ];
    }

    /** @return array{since: int, until: int, pid: int}|null */
    private static function flight(Record $record, float $now): ?array
    {
        $lease = $record->lease($now);
        return $lease === null ? null
            : ['since' => (int) $lease['since'], 'until' => (int) $lease['until'], 'pid' => Flight::process($lease['holder'])];
    }

    /** @return array{until: int, failures: int, reason: string}|null */
    private static function backoff(Record $record, float $now): ?array
    {
        $backoff = $record->backoff($now);
        return $backoff === null ? null : ['until' => (int) $backoff['until']] + $backoff;
    }

    /** @return array<string, mixed> */
    private static function rates(Holding $holding, float $confirmedAt): array
    {
        return [
            'base' => $holding->sheet->base,
            'as_of' => $holding->sheet->asOf,
            'confirmed_at' => self::second($confirmedAt),
            'source' => Sheet::SOURCE,
            'currencies' => \count($holding->sheet->rates),
            'unconfirmed' => $holding->unconfirmed,
            'held_back' => $holding->quarantine !== null,
        ];
    }

    private static function second(?float $instant): ?int
    {
        return $instant === null ? null : (int) floor($instant);
    }
}
