using System.Text;

namespace NbdKit.Server;

/// <summary>Text of a peer's, made safe for a log: bounded, and without control or formatting characters.</summary>
internal static class LogText
{
    private const int MaximumLength = 80;
    private const int MaximumMessage = 400;
    private const int MaximumDetails = 4000;

    /// <summary>An exception, if it can be logged as it is: neither its message nor one inside it would be changed.</summary>
    public static Exception? IfClean(Exception exception)
    {
        for (Exception? e = exception; e is not null; e = e.InnerException)
        {
            string? text = Raw(e);
            if (text is null || Clean(text, MaximumMessage) != text)
            {
                return null;
            }
        }
        return exception;
    }

    /// <summary>What there is to say of an exception beside <see cref="IfClean"/>: all of it if that is null.</summary>
    public static string Details(Exception exception)
        => IfClean(exception) is null && Told(exception.ToString) is { } all ? Clean(all, MaximumDetails) : Message(exception);

    /// <summary>The message of an exception, or its type if it has none to tell.</summary>
    public static string Message(Exception exception) => Clean(Raw(exception) ?? exception.GetType().Name, MaximumMessage);

    public static string Clean(string text, int maximumLength = MaximumLength)
    {
        var builder = new StringBuilder();
        foreach (Rune rune in text.EnumerateRunes())
        {
            if (builder.Length >= maximumLength)
            {
                return builder.Append('…').ToString();
            }
            bool safe = !Rune.IsControl(rune)
                && Rune.GetUnicodeCategory(rune) is not (System.Globalization.UnicodeCategory.Format
                    or System.Globalization.UnicodeCategory.LineSeparator
                    or System.Globalization.UnicodeCategory.ParagraphSeparator
                    or System.Globalization.UnicodeCategory.Surrogate
                    or System.Globalization.UnicodeCategory.PrivateUse
                    or System.Globalization.UnicodeCategory.OtherNotAssigned);
            builder.Append(safe ? rune.ToString() : $"\\u{{{rune.Value:x}}}");
        }
        return builder.ToString();
    }

    private static string? Raw(Exception exception) => Told(() => exception.Message);

    // Members of somebody else's, which fail like any other.
    private static string? Told(Func<string> text)
    {
        try
        {
            return text();
        }
        catch (Exception)
        {
            return null;
        }
    }
}
