<?php

declare(strict_types=1);

namespace SharedState\Polyfill;

/**
 * sharedstate_metrics(): those of the extension's metrics that this store can count, with its words, as OpenMetrics
 * text. The others are left out: a metric that is always 0 would look like good news.
 */
final class Metrics
{
    private string $text = '';

    public static function text(): string
    {
        $metrics = new self();
        $metrics->tokens();
        $metrics->rates();
        return "$metrics->text# EOF\n";
    }

    private function tokens(): void
    {
        $store = Store::current();
        $families = Tally::families();
        [$hits, $misses, $mints, $failures] = [[], [], [], []];
        foreach ($families as $family) {
            $label = ['family' => $family];
            $counts = array_map(static fn (string $reason): int => Tally::ofFamily($family, "minted_$reason"), Tally::REASONS);
            foreach (array_combine(Tally::REASONS, $counts) as $reason => $count) {
                $mints[] = [$label + ['reason' => $reason], $count];
            }
            $hits[] = [$label + ['tier' => $store->tier()], Tally::ofFamily($family, 'hits')];
            $misses[] = [$label + ['from' => 'mint'], array_sum($counts)];
            $failures[] = [$label, Tally::ofFamily($family, 'failed')];
        }
        $this->counter('token_cache_hits', 'Tokens that this host had: in the memory of the request, or in its table', $hits);
        $this->counter('token_cache_misses', 'Tokens that this host did not have, and who brought them', $misses);
        $this->counter('token_mint_count', 'Mints that brought a token, by why they were started', $mints);
        $this->counter('mint_failures', 'Mints that failed, or brought what cannot be used', $failures);
        $this->counter('wait_timeouts', 'Calls that waited for a mint in vain', [[[], $store->counted('wait_timeouts')]]);
        [$entries, $usable] = [0, []];
        foreach ($store->keys() as $key) {
            $entries++;
            if ($key->isToken && $store->read($key)->served(microtime(true)) !== null) {
                $family = Tally::family($key->name);
                $usable[$family] = ($usable[$family] ?? 0) + 1;
            }
        }
        $lines = [];
        foreach (Tally::byPlace($usable) as $family => $count) {
            $lines[] = [['family' => (string) $family], $count];
        }
        $this->gauge('tokens_usable', 'Tokens that may be served now', $lines);
        $this->gauge('host_entries', 'Names that have a place on this host', [[[], $entries]]);
    }

    private function rates(): void
    {
        $store = Store::current();
        [$age, $confirmed, $heldBack] = [[], [], []];
        foreach ($store->keys() as $key) {
            $now = microtime(true);
            $entry = $key->isToken ? null : $store->read($key)->served($now);
            if ($entry?->value instanceof Holding) {
                $labels = ['sheet' => $key->name, 'source' => Sheet::SOURCE];
                $age[] = [$labels, max(0, (int) floor($now - ($entry->value->sheet->asOf ?? $entry->mintedAt)))];
                $confirmed[] = [$labels, max(0, (int) floor($now - $entry->mintedAt))];
                $heldBack[] = [$labels, (int) ($entry->value->quarantine !== null)];
            }
        }
        $this->gauge('fx_age', "Since the sheet's own date", $age, 'seconds');
        $this->gauge('fx_confirmed_age', 'Since a source last said that the sheet is its newest', $confirmed, 'seconds');
        $this->gauge('fx_sheet_held_back', 'A newer sheet looks wrong: 1', $heldBack);
        $source = ['source' => Sheet::SOURCE];
        $calls = Tally::ofRates('called');
        $results = array_map(static fn (string $result): array => [$source + ['result' => $result], Tally::ofRates($result)], ['taken', 'quarantined', 'failed']);
        $this->counter('fx_provider_calls', 'Calls to sources of rates', $calls === 0 ? [] : [[$source, $calls]]);
        $this->counter('fx_refresh', 'What came of asking a source of rates', $calls === 0 ? [] : $results);
        $this->counter('fx_cache_hits', 'Rates that this host had', [[[], Tally::ofRates('hits')]]);
        $this->counter('fx_cache_misses', 'Rates that this host did not have', [[[], Tally::ofRates('minted')]]);
        $this->counter('fx_quarantined', 'Sheets that looked wrong and were held back', [[[], Tally::ofRates('quarantined')]]);
        $interval = (int) Settings::current()->number('fx.refresh_interval_s');
        $this->gauge('fx_refresh_interval', 'When a sheet is due again, as configured', [[[], $interval]], 'seconds');
    }

    /** @param list<array{array<string, string>, int}> $lines */
    private function counter(string $name, string $help, array $lines): void
    {
        $this->head("sharedstate_$name", 'counter', $help, null);
        $this->lines("sharedstate_{$name}_total", $lines);
    }

    /** @param list<array{array<string, string>, int}> $lines */
    private function gauge(string $name, string $help, array $lines, ?string $unit = null): void
    {
        $name = "sharedstate_$name" . ($unit === null ? '' : "_$unit");
        $this->head($name, 'gauge', $help, $unit);
        $this->lines($name, $lines);
    }

    private function head(string $name, string $type, string $help, ?string $unit): void
    {
        $this->text .= "# HELP $name $help\n# TYPE $name $type\n" . ($unit === null ? '' : "# UNIT $name $unit\n");
    }

    /** @param list<array{array<string, string>, int}> $lines */
    private function lines(string $name, array $lines): void
    {
        foreach ($lines as [$labels, $value]) {
            $pairs = array_map(static fn (string $key, string $label): string => "$key=\"" . self::label($label) . '"', array_keys($labels), $labels);
            $this->text .= $name . ($pairs === [] ? '' : '{' . implode(',', $pairs) . '}') . " $value\n";
        }
    }

    /** A name is bytes: what is not UTF-8 is written as no name can be. A quote must not end the label. */
    private static function label(string $name): string
    {
        return Text::isUtf8($name) ? addcslashes($name, "\\\"") : 'bytes:' . strtr(rawurlencode($name), ['-' => '%2D', '.' => '%2E', '_' => '%5F', '~' => '%7E']);
    }
}
