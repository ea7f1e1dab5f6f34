<?php

declare(strict_types=1);

namespace SharedState\Polyfill;

/** Three capital letters, as in ISO 4217. Sources know more than its list (BTC), so that is not asked for. */
final class Currency
{
    /**
     * Decimals of ISO 4217's list of currencies in force. XAU, XDR and the like have none there, and of those that
     * were withdrawn (HRK, BGN) ISO publishes none. Not from ICU (ext-intl, symfony/intl): that counts what is usual
     * in shops, 0 for AFN or RSD.
     */
    private const DECIMALS = [
        0 => 'BIF CLP DJF GNF ISK JPY KMF KRW PYG RWF UGX UYI VND VUV XAF XOF XPF',
        2 => 'AED AFN ALL AMD AOA ARS AUD AWG AZN BAM BBD BDT BMD BND BOB BOV BRL BSD BTN BWP BYN BZD CAD CDF CHE CHF '
            . 'CHW CNY COP COU CRC CUP CVE CZK DKK DOP DZD EGP ERN ETB EUR FJD FKP GBP GEL GHS GIP GMD GTQ GYD HKD HNL '
            . 'HTG HUF IDR ILS INR IRR JMD KES KGS KHR KPW KYD KZT LAK LBP LKR LRD LSL MAD MDL MGA MKD MMK MNT MOP MRU '
            . 'MUR MVR MWK MXN MXV MYR MZN NAD NGN NIO NOK NPR NZD PAB PEN PGK PHP PKR PLN QAR RON RSD RUB SAR SBD SCR SDG '
            . 'SEK SGD SHP SLE SOS SRD SSP STN SVC SYP SZL THB TJS TMT TOP TRY TTD TWD TZS UAH USD USN UYU UZS VED VES '
            . 'WST XAD XCD XCG YER ZAR ZMW ZWG',
        3 => 'BHD IQD JOD KWD LYD OMR TND',
        4 => 'CLF UYW',
    ];

    private function __construct()
    {
    }

    /** @return string the code @throws Refusal */
    public static function checked(string $code, int $position): string
    {
        return self::isCode($code) ? $code : throw Refusal::value($position, 'cannot be used: ' . self::why($code));
    }

    public static function isCode(string $code): bool
    {
        return preg_match('/^[A-Z]{3}$/D', $code) === 1;
    }

    public static function why(string $code): string
    {
        return Text::quoted($code) . ' is not a currency code, expected three capital letters such as EUR';
    }

    /** Yen have 0 decimals, euro 2, Bahraini dinar 3. Null where there is no such number: a guess would be somebody's money. */
    public static function decimals(string $code): ?int
    {
        foreach (self::DECIMALS as $decimals => $codes) {
            if (str_contains($codes, $code)) {
                return $decimals;
            }
        }
        return null;
    }
}
