<?php

declare(strict_types=1);

namespace SharedState\Polyfill;

/**
 * The ECB's daily document, `gesmes:Envelope/Cube/Cube[time]/Cube[currency][rate]`, or that of its last 90 days, of
 * which the newest counts. One that declares a document type is refused, so no entity is ever expanded.
 */
final class EcbDocument
{
    private const MAX_BYTES = 1 << 20;

    /** @throws Unusable */
    public static function read(string $text): Sheet
    {
        if (!\function_exists('simplexml_load_string')) {
            throw new Unusable("the ECB's document needs PHP's extension simplexml: load it, or return an array");
        }
        $bytes = \strlen($text);
        if ($bytes > self::MAX_BYTES) {
            throw new Unusable("the ECB's document has $bytes bytes, expected " . self::MAX_BYTES . ' at most: use the daily one');
        }
        if (stripos($text, '<!DOCTYPE') !== false) {
            throw new Unusable("the ECB's document declares a document type (DTD), which the ECB's never does: it is not read");
        }
        $before = libxml_use_internal_errors(true);
        $root = simplexml_load_string($text, options: LIBXML_NONET);
        libxml_clear_errors();
        libxml_use_internal_errors($before);
        if ($root === false) {
            throw new Unusable("the ECB's document is not well-formed XML, or it is incomplete");
        }
        if ($root->getName() !== 'Envelope') {
            throw new Unusable('the document has ' . Text::quoted($root->getName(), 20) . ' at its root, expected one gesmes:Envelope as the '
                . 'ECB sends it');
        }
        return self::newest($root);
    }

    private static function newest(\SimpleXMLElement $root): Sheet
    {
        $days = [];
        foreach ($root->xpath('//*[local-name()="Cube"][@time]') ?: [] as $day) {
            $time = (string) $day['time'];
            $asOf = Sheet::asOfDay($time) ?? throw new Unusable("the ECB's document has the time " . Text::quoted($time, 20)
                . ', expected a day such as 2026-11-24');
            if (isset($days[$asOf])) {
                throw new Unusable("the ECB's document has the same day twice");
            }
            $days[$asOf] = $day;
        }
        if ($days === []) {
            throw new Unusable("the ECB's document has no rates, expected Cube time='2026-11-24' with one for each currency");
        }
        $asOf = max(array_keys($days));
        $rates = [];
        foreach ($days[$asOf]->xpath('.//*[local-name()="Cube"]') ?: [] as $cube) {
            if (!isset($cube['currency'], $cube['rate'])) {
                throw new Unusable("the ECB's document has a Cube of another form, expected one with a currency and a rate");
            }
            $rates[] = [(string) $cube['currency'], (string) $cube['rate']];
        }
        return Sheet::build('EUR', $asOf, $rates);
    }
}
