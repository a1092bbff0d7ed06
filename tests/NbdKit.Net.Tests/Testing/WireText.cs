using System.Text;

namespace NbdKit.Tests.Testing;

/// <summary>The rules for each string that the server sends (S001, S002).</summary>
internal static class WireText
{
    private static readonly UTF8Encoding Strict = new(encoderShouldEmitUTF8Identifier: false, throwOnInvalidBytes: true);

    public static string Check(ReadOnlySpan<byte> bytes)
    {
        Assert.That(bytes.Length, Is.LessThanOrEqualTo(4096), "a string on the wire is too long");
        Assert.That(bytes.Contains((byte)0), Is.False, "a string on the wire contains NUL");
        return Strict.GetString(bytes);
    }
}
