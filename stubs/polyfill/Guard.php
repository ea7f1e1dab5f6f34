<?php

declare(strict_types=1);

namespace SharedState\Polyfill;

/**
 * What becomes of a sheet that was just fetched, beside the one that is held: one that looks wrong is held back
 * until the next confirms it. Unlike the extension's this guard does not learn how far a currency usually moves:
 * for each it assumes what the extension does of one that it has just met.
 */
final class Guard
{
    private const DAY = 86_400;
    /** As a share: twelve times the usual daily move of 0.5 %. */
    private const LIMIT = 0.06;

    public function __construct(private readonly float $maxJump)
    {
    }

    /**
     * @return array{Holding, bool, ?string} what is held from now on; whether the sheet is in force; why it is not
     * @throws Unusable
     */
    public function judge(?Holding $held, Sheet $sheet, bool $heldIsStale, float $now): array
    {
        if ($sheet->asOf !== null && $sheet->asOf > $now + self::DAY) {
            throw self::refused('its date is more than a day ahead: check the clock of this host');
        }
        if ($held === null) {
            return [new Holding($sheet, null, true), true, null];
        }
        $old = $held->sheet;
        $dated = $sheet->asOf !== null && $old->asOf !== null;
        // A date ahead of now is wrong, and says nothing.
        if ($dated && $sheet->asOf < $old->asOf && $old->asOf <= $now) {
            throw self::refused('it is older than the sheet that is held');
        }
        if ((!$dated || $sheet->asOf === $old->asOf) && $sheet->base === $old->base && self::sameRates($sheet, $old)) {
            return [new Holding($old, null, $held->unconfirmed), true, null];
        }
        $lacking = array_keys(array_diff_key($old->rates, $sheet->rates));
        if ($lacking !== [] && !$heldIsStale) {
            throw self::refused('it lacks ' . self::some($lacking) . ', which the held sheet has');
        }
        $days = $dated ? abs($sheet->asOf - $old->asOf) / self::DAY : 1.0;
        $limit = min($this->maxJump, self::LIMIT * sqrt(max(1.0, $days)));
        $moves = self::moves($old, $sheet) ?? throw self::refused('it has no base in common with the held sheet');
        $jumped = array_filter($moves, static fn (float $moved): bool => $moved > $limit);
        if ($jumped === [] || ($held->quarantine !== null && $this->confirms($sheet, $held->quarantine, $jumped))) {
            return [new Holding($sheet), true, null];
        }
        $words = array_map(static fn (string $code, float $moved): string => sprintf('%s moved %.1F %%', $code, $moved * 100), array_keys($jumped), $jumped);
        $why = self::some($words) . ' against the held sheet: held back until a later sheet confirms it';
        // What is not later says nothing new.
        $waiting = $held->quarantine;
        $later = $waiting === null || ($sheet->asOf ?? PHP_INT_MAX) >= ($waiting->asOf ?? 0);
        return [new Holding($old, $later ? $sheet : $waiting, $held->unconfirmed), false, $why];
    }

    /**
     * Later than the suspicious one and near to it; never the same document once more, and never of a jump it had no rate for.
     *
     * @param array<string, float> $jumped
     */
    private function confirms(Sheet $sheet, Sheet $suspicious, array $jumped): bool
    {
        $dated = $sheet->asOf !== null && $suspicious->asOf !== null;
        $later = $dated ? $sheet->asOf > $suspicious->asOf : !self::sameRates($sheet, $suspicious);
        $moves = self::moves($suspicious, $sheet);
        return $later && array_diff_key($jumped, $suspicious->rates) === [] && $moves !== null && max($moves) <= $this->maxJump;
    }

    /** @return array<string, float>|null by code, as a share upwards of the smaller rate, on a base that both have; floats are good enough to doubt by */
    private static function moves(Sheet $old, Sheet $new): ?array
    {
        $base = array_values(array_filter([$old->base, $new->base], static fn (string $base): bool => isset($old->rates[$base], $new->rates[$base])))[0] ?? null;
        if ($base === null) {
            return null;
        }
        $moves = [];
        foreach (array_intersect_key($old->rates, $new->rates) as $code => $rate) {
            $pair = [(float) $rate / (float) $old->rates[$base], (float) $new->rates[$code] / (float) $new->rates[$base]];
            $moves[$code] = max($pair) / min($pair) - 1;
        }
        return $moves;
    }

    private static function sameRates(Sheet $one, Sheet $other): bool
    {
        // As numbers: "0.80" is "0.8".
        $plain = static fn (string $rate): string => str_contains($rate, '.') ? rtrim(rtrim($rate, '0'), '.') : $rate;
        return array_map($plain, $one->rates) === array_map($plain, $other->rates);
    }

    private static function refused(string $why): Unusable
    {
        return new Unusable("the callable's sheet is refused: $why");
    }

    /** @param list<string> $words */
    private static function some(array $words): string
    {
        $more = \count($words) - 3;
        return implode(', ', \array_slice($words, 0, 3)) . ($more > 0 ? " and $more more" : '');
    }
}
