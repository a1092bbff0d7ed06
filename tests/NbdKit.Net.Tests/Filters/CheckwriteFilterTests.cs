using NbdKit.Filters;
using NbdKit.Tests.Testing;

namespace NbdKit.Tests.Filters;

public class CheckwriteFilterTests
{
    private const int Size = 100_000;

    [Test]
    public async Task Only_what_is_there_already_can_be_written([Values] bool hasExtents)
    {
        const int Seed = 49;
        var random = new Random(Seed);
        byte[] content = TestData.Random(Size, Seed);
        content.AsSpan(20_000, 50_000).Clear();
        var plugin = new ModelPlugin(content, ModelPlugin.Everything with { CanWrite = false, CanExtents = hasExtents }, new Random(Seed));
        await using NbdBackend chain = NbdBackend.Compose(plugin, new CheckwriteFilter());
        await using NextContext disk = await chain.OpenAsync();
        Assert.That(plugin.Opens, Is.EqualTo(new[] { ("", true) }));
        for (int i = 0; i < 500; i++)
        {
            int offset = random.Next(Size);
            int length = random.Next(1, Math.Min(30_000, Size - offset + 1));
            byte[] data = content[offset..(offset + length)];
            bool isZero = content.AsSpan(offset, length).IndexOfAnyExcept((byte)0) < 0;
            switch (random.Next(4))
            {
                case 0:
                    await CheckAsync(disk.TrimAsync(offset, length, RequestFlags.Fua, default), isZero, i);
                    break;
                case 1:
                    await CheckAsync(disk.ZeroAsync(offset, length, RequestFlags.MayTrim, default), isZero, i);
                    break;
                case 2:
                    await CheckAsync(disk.WriteAsync(data, offset, RequestFlags.Fua, default), true, i);
                    break;
                default:
                    data[random.Next(length)] ^= 1;
                    await CheckAsync(disk.WriteAsync(data, offset, RequestFlags.None, default), false, i);
                    break;
            }
        }
        await disk.FlushAsync(default);
        Assert.That(plugin.Offence, Is.Null);
        Assert.That(plugin.Data, Is.EqualTo(content));
    }

    [Test]
    public async Task The_message_names_the_first_byte_that_differs()
    {
        await using NbdBackend chain = NbdBackend.Compose(new ModelPlugin([1, 2, 3, 4]), new CheckwriteFilter());
        await using NextContext disk = await chain.OpenAsync();
        Assert.That(
            () => disk.WriteAsync(new byte[] { 2, 9, 4 }, 1, RequestFlags.None, default).AsTask(),
            Throws.InstanceOf<NbdException>().With.Message.Contains("byte 2").And.Message.Contains("09"));
        Assert.That(
            () => disk.ZeroAsync(3, 1, RequestFlags.None, default).AsTask(),
            Throws.InstanceOf<NbdException>().With.Message.Contains("byte 3"));
    }

    private static async Task CheckAsync(ValueTask change, bool passes, int operation)
    {
        try
        {
            await change;
            Assert.That(passes, $"operation {operation} should fail");
        }
        catch (NbdException e)
        {
            Assert.That((passes, e.Error), Is.EqualTo((false, NbdError.IoError)), $"operation {operation}: {e.Message}");
        }
    }
}
