using System.Text;

namespace NbdKit.Tool;

/// <summary>Text on the standard output and error, each piece in one write.</summary>
internal static class StandardText
{
    private static readonly Lock ErrorLock = new();

    public static byte[] Bytes(string text) => Encoding.UTF8.GetBytes(text);

    public static void WriteError(string line)
    {
        byte[] bytes = Bytes(line + "\n");
        lock (ErrorLock)
        {
            using Stream error = Console.OpenStandardError();
            error.Write(bytes);
        }
    }

    /// <summary>The message of an exception in one line, without the name of the argument that was wrong.</summary>
    public static string OneLine(Exception exception)
    {
        string message = exception.Message;
        if (exception is ArgumentException { ParamName: { } parameter })
        {
            message = message.Replace($" (Parameter '{parameter}')", "", StringComparison.Ordinal);
        }
        return message.ReplaceLineEndings(" ");
    }
}
