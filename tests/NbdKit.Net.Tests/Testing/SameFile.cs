using System.Security.Cryptography;

namespace NbdKit.Tests.Testing;

/// <summary>Compares files.</summary>
internal static class SameFile
{
    /// <summary>Fails the test unless a file holds the same bytes as another.</summary>
    public static async Task CheckAsync(string actual, string expected, string message = "")
    {
        Assert.That(new FileInfo(actual).Length, Is.EqualTo(new FileInfo(expected).Length), $"Size of {actual}. {message}");
        Assert.That(await HashAsync(actual), Is.EqualTo(await HashAsync(expected)), $"SHA-256 of {actual}. {message}");
    }

    private static async Task<string> HashAsync(string path)
    {
        await using FileStream file = File.OpenRead(path);
        return Convert.ToHexString(await SHA256.HashDataAsync(file));
    }
}
