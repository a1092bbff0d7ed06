using NbdKit.Buffers;

namespace NbdKit.Tests.Buffers;

public sealed class PayloadArraysTests
{
    [Test]
    public void The_largest_payload_and_its_header_take_no_more_than_they_must()
    {
        const int size = (32 << 20) + 16;
        byte[] array = PayloadArrays.Rent(size);
        Assert.That(array, Has.Length.EqualTo(size));
        PayloadArrays.Return(array);
    }

    [Test]
    public void Small_arrays_are_used_again([Values(64 << 10, (512 << 10) + 16, PayloadArrays.MaxPooled)] int size)
    {
        byte[] array = PayloadArrays.Rent(size);
        Assert.That(array, Has.Length.AtLeast(size).And.Length.AtMost(PayloadArrays.MaxPooled));
        PayloadArrays.Return(array);
        byte[] again = PayloadArrays.Rent(size);
        Assert.That(again, Is.SameAs(array));
        PayloadArrays.Return(again);
    }
}
