using System.Globalization;
using System.Numerics;

namespace NbdKit;

/// <summary>
/// nbdkit's ways of writing sizes, switches, delays and probabilities, for hosts and plugins that read configuration.
/// Independent of culture.
/// </summary>
public static class NbdParse
{
    private const string SizeSuffixes = "kmgtpe";

    /// <summary>
    /// Parses a size in bytes: <c>512</c>, <c>1.5G</c>, <c>0x1_E</c> (one exbibyte), <c>4s</c> (sectors of 512 bytes). The
    /// suffixes b, k, m, g, t, p, e and s may be upper or lower case and count in powers of 1,024; a number may be decimal
    /// (with a fraction, if a suffix makes whole bytes of it), hexadecimal (0x) or octal (0), and may have <c>_</c> before the
    /// suffix.
    /// </summary>
    /// <param name="text">The text.</param>
    /// <returns>The size, from 0 to 2^63-1.</returns>
    /// <exception cref="FormatException">The text is not a size, is negative, or is too large.</exception>
    public static long Size(string text)
    {
        ArgumentNullException.ThrowIfNull(text);
        string number = text.Trim();
        number = number.StartsWith('+') ? number[1..] : number;
        bool hexadecimal = number.StartsWith("0x", StringComparison.OrdinalIgnoreCase);
        BigInteger scale = BigInteger.One;
        if (number.Length > 0)
        {
            char last = char.ToLowerInvariant(number[^1]);
            bool separated = number.Length > 1 && number[^2] == '_';
            int power = SizeSuffixes.IndexOf(last, StringComparison.Ordinal);
            // In a hexadecimal number b and e are digits unless "_" sets them apart.
            bool isDigit = hexadecimal && !separated && char.IsAsciiHexDigit(last);
            if (!isDigit && (power >= 0 || last is 'b' or 's'))
            {
                scale = last switch { 's' => 512, 'b' => 1, _ => BigInteger.Pow(1024, power + 1) };
                number = number[..(separated ? ^2 : ^1)];
            }
        }
        BigInteger value;
        if (hexadecimal)
        {
            value = WholeNumber(number[2..], 16, text) * scale;
        }
        else if (number.Length > 1 && number[0] == '0' && number.All(char.IsAsciiDigit))
        {
            value = WholeNumber(number[1..], 8, text) * scale;
        }
        else
        {
            int point = number.IndexOf('.', StringComparison.Ordinal);
            string fraction = point < 0 ? "" : number[(point + 1)..];
            if (fraction.Length > 30 || (point >= 0 && fraction.Length == 0))
            {
                throw NotA("size", text);
            }
            value = WholeNumber((point < 0 ? number : number[..point]) + fraction, 10, text) * scale;
            value = BigInteger.DivRem(value, BigInteger.Pow(10, fraction.Length), out BigInteger rest);
            if (!rest.IsZero)
            {
                throw new FormatException($"'{text}' is not a whole number of bytes.");
            }
        }
        return value <= long.MaxValue ? (long)value : throw new FormatException($"'{text}' is more than 2^63-1 bytes.");
    }

    /// <summary>Parses a switch: 1/0, true/false, t/f, yes/no, y/n, on/off, in any case.</summary>
    /// <param name="text">The text.</param>
    /// <exception cref="FormatException">The text is none of these.</exception>
    public static bool Boolean(string text)
    {
        ArgumentNullException.ThrowIfNull(text);
        return text.ToLowerInvariant() switch
        {
            "1" or "true" or "t" or "yes" or "y" or "on" => true,
            "0" or "false" or "f" or "no" or "n" or "off" => false,
            _ => throw NotA("boolean (true or false)", text),
        };
    }

    /// <summary>Parses a probability: <c>0.1</c>, <c>10%</c>, <c>1:10</c> or <c>1/10</c>. It may exceed 1.</summary>
    /// <param name="text">The text.</param>
    /// <returns>A finite number, 0 or more.</returns>
    /// <exception cref="FormatException">The text is not a probability.</exception>
    public static double Probability(string text)
    {
        ArgumentNullException.ThrowIfNull(text);
        int colon = text.IndexOfAny([':', '/']);
        double value = text.EndsWith('%')
            ? Number(text[..^1], "probability", text) / 100
            : colon >= 0
                ? Number(text[..colon], "probability", text) / Number(text[(colon + 1)..], "probability", text)
                : Number(text, "probability", text);
        return double.IsFinite(value) ? value : throw NotA("probability", text);
    }

    /// <summary>Parses a delay: a number of seconds, or one followed by s, ms, us, μs or ns, such as <c>100ms</c>.</summary>
    /// <param name="text">The text.</param>
    /// <returns>The delay, rounded to 100 nanoseconds.</returns>
    /// <exception cref="FormatException">The text is not a delay, is negative, or is too large.</exception>
    public static TimeSpan Delay(string text)
    {
        ArgumentNullException.ThrowIfNull(text);
        (string number, double seconds) = text switch
        {
            _ when text.EndsWith("ms", StringComparison.Ordinal) => (text[..^2], 1e-3),
            _ when text.EndsWith("us", StringComparison.Ordinal) => (text[..^2], 1e-6),
            // U+03BC and U+00B5 look the same.
            _ when text.EndsWith("\u03bcs", StringComparison.Ordinal) => (text[..^2], 1e-6),
            _ when text.EndsWith("\u00b5s", StringComparison.Ordinal) => (text[..^2], 1e-6),
            _ when text.EndsWith("ns", StringComparison.Ordinal) => (text[..^2], 1e-9),
            _ when text.EndsWith('s') => (text[..^1], 1.0),
            _ => (text, 1.0),
        };
        double ticks = Math.Round(Number(number, "delay", text) * seconds * TimeSpan.TicksPerSecond);
        return ticks < long.MaxValue ? TimeSpan.FromTicks((long)ticks) : throw new FormatException($"'{text}' is too long a delay.");
    }

    /// <summary>Parses a whole number in decimal, hexadecimal (0x) or octal (0).</summary>
    /// <param name="text">The text, with a sign or without.</param>
    /// <param name="minimum">The smallest value allowed.</param>
    /// <param name="maximum">The largest value allowed.</param>
    /// <exception cref="FormatException">The text is not a number, or out of range.</exception>
    public static long Integer(string text, long minimum = long.MinValue, long maximum = long.MaxValue)
    {
        ArgumentNullException.ThrowIfNull(text);
        bool negative = text.StartsWith('-');
        string digits = negative || text.StartsWith('+') ? text[1..] : text;
        BigInteger value = digits.StartsWith("0x", StringComparison.OrdinalIgnoreCase)
            ? WholeNumber(digits[2..], 16, text)
            : digits.Length > 1 && digits[0] == '0' ? WholeNumber(digits[1..], 8, text) : WholeNumber(digits, 10, text);
        value = negative ? -value : value;
        return value >= minimum && value <= maximum
            ? (long)value
            : throw new FormatException($"'{text}' is not between {minimum} and {maximum}.");
    }

    private static BigInteger WholeNumber(string digits, int radix, string text)
    {
        if (digits.Length is 0 or > 60)
        {
            throw NotA("number", text);
        }
        BigInteger value = 0;
        foreach (char c in digits)
        {
            int digit = char.IsAsciiHexDigit(c) ? Convert.ToInt32(c.ToString(), 16) : radix;
            value = digit < radix ? (value * radix) + digit : throw NotA("number", text);
        }
        return value;
    }

    private static double Number(string number, string what, string text)
        => double.TryParse(number, NumberStyles.AllowDecimalPoint | NumberStyles.AllowExponent, CultureInfo.InvariantCulture, out double value)
            && double.IsFinite(value)
            ? value
            : throw NotA(what, text);

    private static FormatException NotA(string what, string text) => new($"'{text}' is not a {what}.");
}
