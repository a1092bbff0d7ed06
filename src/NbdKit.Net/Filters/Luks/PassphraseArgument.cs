using System.Globalization;
using System.Text;
using Microsoft.Win32.SafeHandles;

namespace NbdKit.Filters.Luks;

/// <summary>Reads a passphrase in the ways of nbdkit_read_password(3).</summary>
internal static class PassphraseArgument
{
    private const int LongestLine = 64 << 10;

    /// <summary>
    /// Reads what a parameter stands for: <c>-</c> for a line of the standard input, <c>-FD</c> for one of an inherited file
    /// descriptor, <c>+FILE</c> for the first line of a file, and everything else for itself.
    /// </summary>
    /// <param name="parameter">The name of the parameter.</param>
    /// <param name="value">Its value.</param>
    /// <returns>The passphrase, which the caller disposes of.</returns>
    /// <exception cref="ArgumentException">It cannot be read from there.</exception>
    public static Secret Read(string parameter, string value)
    {
        try
        {
            switch (value)
            {
                case "-":
                    return Ask(parameter);
                case ['-', .. string number]:
                    // A descriptor that is in use for something else would be closed.
                    if (!int.TryParse(number, NumberStyles.None, CultureInfo.InvariantCulture, out int descriptor) || descriptor <= 2)
                    {
                        throw new ArgumentException($"{parameter}=-FD: '{number}' is not the number of a file descriptor above 2.", parameter);
                    }
                    using (var stream = new FileStream(new SafeFileHandle(descriptor, ownsHandle: true), FileAccess.Read, 0))
                    {
                        return Line(stream);
                    }
                case ['+', .. string path]:
                    using (FileStream stream = new(path, FileMode.Open, FileAccess.Read, FileShare.Read, 0))
                    {
                        return Line(stream);
                    }
                default:
                    return new Secret(Encoding.UTF8.GetBytes(value));
            }
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException or InvalidDataException)
        {
            throw new ArgumentException($"{parameter}: the passphrase cannot be read: {e.Message}", parameter, e);
        }
    }

    private static Secret Ask(string parameter)
    {
        if (Console.IsInputRedirected)
        {
            using Stream input = Console.OpenStandardInput(0);
            return Line(input);
        }
        Console.Error.Write($"{parameter}: ");
        var text = new StringBuilder();
        for (ConsoleKeyInfo key; (key = Console.ReadKey(intercept: true)).Key != ConsoleKey.Enter;)
        {
            if (key.Key == ConsoleKey.Backspace)
            {
                text.Length = Math.Max(0, text.Length - 1);
            }
            else
            {
                text.Append(key.KeyChar);
            }
        }
        Console.Error.WriteLine();
        return new Secret(Encoding.UTF8.GetBytes(text.ToString()));
    }

    // One byte at a time: what follows the line belongs to somebody else.
    internal static Secret Line(Stream stream)
    {
        using var line = new Secret(LongestLine);
        int length = 0;
        while (stream.Read(line.Span.Slice(length, 1)) == 1 && line.Span[length] != (byte)'\n')
        {
            if (++length == LongestLine)
            {
                throw new InvalidDataException("the line is too long");
            }
        }
        return new Secret(line.Span[..length]);
    }
}
